//! The partition of a key: murmur2, as the Java and Node clients compute it.
//!
//! Whoever writes a key and whoever looks for it must agree on its partition, across languages. So
//! this is the default partitioner of Kafka's Java client
//! (`org.apache.kafka.common.utils.Utils.murmur2`, 32 bits, seed `0x9747b28c`).

use crate::Partition;

const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// The 32-bit murmur2 hash of `bytes`.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    // The algorithm is defined on 32-bit lengths; keys are far shorter.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (shift, byte) in [0, 8, 16].into_iter().zip(tail) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of `key` in a topic with `partitions` partitions.
///
/// # Panics
///
/// When `partitions` is not positive: there is no such topic.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> Partition {
    let count = u32::try_from(partitions).expect("a topic has a positive number of partitions");
    let bucket = (murmur2(key) & 0x7fff_ffff) % count;
    Partition(i32::try_from(bucket).expect("a partition is smaller than the number of partitions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_the_java_client_does() {
        let vectors: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn partitions_are_in_range() {
        for n in 0..1000 {
            let Partition(partition) = partition_of(format!("key-{n}").as_bytes(), 7);
            assert!((0..7).contains(&partition));
        }
    }
}
