//! How rows of the stores are laid out.
//!
//! ```text
//! version  field  field  …          version: one byte, of the whole row
//! number   LEB128 varint            time:    number, zigzag
//! text     length, UTF-8            price:   mantissa (16 bytes), scale
//! option   0 | 1 value              list:    length, values
//! ```
//!
//! Fields have no names, so a change of a row needs a new version. A row of another version is
//! an error, never a guess: it stops the instance.

use rust_decimal::Decimal;
use turnstile_engine::{CodecError, TimestampMs};

use crate::ids::Id;
use crate::price::{Amount, InvalidAmount, Price};

/// A part of a row.
pub(crate) trait Row: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError>;
}

/// What is left to read of a row.
pub(crate) struct RowReader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(crate) fn fault(&self, why: impl Into<String>) -> CodecError {
        CodecError {
            what: self.what,
            why: why.into(),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8, CodecError> {
        let (byte, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| self.fault("it is cut off"))?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let split = self.rest.split_at_checked(length);
        let (bytes, rest) = split.ok_or_else(|| self.fault("it is cut off"))?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn length(&mut self) -> Result<usize, CodecError> {
        let length = u64::read(self)?;
        usize::try_from(length).map_err(|_| self.fault("a length is beyond memory"))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, CodecError> {
        let length = self.length()?;
        let bytes = self.bytes(length)?;
        std::str::from_utf8(bytes).map_err(|error| self.fault(error.to_string()))
    }

    /// Everything that is left.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.fault(format!("{} bytes are left over", self.rest.len())))
    }
}

pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).write(out);
    out.extend_from_slice(bytes);
}

impl Row for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        let mut left = *self;
        while left >= 0x80 {
            out.push(low_bits(left) | 0x80);
            left >>= 7;
        }
        out.push(low_bits(left));
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = from.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(from.fault("a number is longer than 64 bits"))
    }
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).expect("seven bits fit a byte")
}

impl Row for TimestampMs {
    fn write(&self, out: &mut Vec<u8>) {
        ((self.0 << 1) ^ (self.0 >> 63)).cast_unsigned().write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let zigzag = u64::read(from)?;
        Ok(Self(
            (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed(),
        ))
    }
}

impl Row for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(from.fault(format!("{other} is neither yes nor no"))),
        }
    }
}

impl Row for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        from.text().map(str::to_owned)
    }
}

impl<T: Id> Row for T {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.text().as_bytes(), out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let text = from.text()?;
        T::of(text).map_err(|error| from.fault(error.to_string()))
    }
}

impl Row for Amount {
    fn write(&self, out: &mut Vec<u8>) {
        let decimal = self.decimal();
        out.extend_from_slice(&decimal.mantissa().to_le_bytes());
        u64::from(decimal.scale()).write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let bytes = from.bytes(16)?;
        let bytes = <[u8; 16]>::try_from(bytes).map_err(|error| from.fault(error.to_string()))?;
        let scale = u64::read(from)?;
        let scale = u32::try_from(scale).map_err(|error| from.fault(error.to_string()))?;
        let decimal = Decimal::try_from_i128_with_scale(i128::from_le_bytes(bytes), scale);
        decimal
            .map(Self::from)
            .map_err(|error| from.fault(error.to_string()))
    }
}

impl Row for Price {
    fn write(&self, out: &mut Vec<u8>) {
        Amount::from(*self).write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let amount = Amount::read(from)?;
        amount
            .try_into()
            .map_err(|error: InvalidAmount| from.fault(error.to_string()))
    }
}

impl<T: Row> Row for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        bool::read(from)?.then(|| T::read(from)).transpose()
    }
}

impl<T: Row> Row for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u64).write(out);
        for value in self {
            value.write(out);
        }
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let length = from.length()?;
        (0..length).map(|_| T::read(from)).collect()
    }
}

/// The fields of a struct, in this order.
macro_rules! row {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::row::Row for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $($crate::row::Row::write(&self.$field, out);)+
            }

            fn read(
                from: &mut $crate::row::RowReader<'_>,
            ) -> Result<Self, turnstile_engine::CodecError> {
                Ok(Self { $($field: $crate::row::Row::read(from)?),+ })
            }
        }
    };
}

/// A type that is a whole row, of this version.
macro_rules! stored {
    ($name:ty, $version:literal) => {
        impl turnstile_engine::Codec for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.push($version);
                $crate::row::Row::write(self, out);
            }

            fn decode(bytes: &[u8]) -> Result<Self, turnstile_engine::CodecError> {
                let mut from = $crate::row::RowReader::new(stringify!($name), bytes);
                let version = from.byte()?;
                if version != $version {
                    return Err(from.fault(format!("its version is {version}, not {}", $version)));
                }
                let row = $crate::row::Row::read(&mut from)?;
                from.end()?;
                Ok(row)
            }
        }
    };
}

pub(crate) use {row, stored};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnstile_engine::Codec;

    use super::*;
    use crate::ids::OrderId;

    #[derive(Debug, Clone, PartialEq)]
    struct Everything {
        number: u64,
        time: TimestampMs,
        flag: bool,
        text: String,
        price: Option<Price>,
        orders: Vec<OrderId>,
    }

    row!(Everything {
        number,
        time,
        flag,
        text,
        price,
        orders
    });
    stored!(Everything, 7);

    prop_compose! {
        fn everything()(
            number: u64, time: i64, flag: bool, text: String,
            price in proptest::option::of((0..u64::MAX, 0..9_u32)),
            orders in proptest::collection::vec(".{1,30}", 0..4),
        ) -> Everything {
            let price = price.map(|(digits, scale)| {
                let text = rust_decimal::Decimal::from_i128_with_scale(digits.into(), scale).to_string();
                Price::try_from(Amount::from_json(&text).expect("digits")).expect("positive")
            });
            let orders = orders.into_iter().map(|id| OrderId::new(id).expect("not empty")).collect();
            Everything { number, time: TimestampMs(time), flag, text, price, orders }
        }
    }

    proptest! {
        #[test]
        fn rows_read_as_they_were_written(row in everything()) {
            prop_assert_eq!(Everything::decode(&row.to_bytes()).unwrap(), row);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let mut versioned = vec![7];
            versioned.extend(&bytes);
            if let Ok(row) = Everything::decode(&versioned) {
                prop_assert_eq!(Everything::decode(&row.to_bytes()).unwrap(), row);
            }
        }

        #[test]
        fn a_cut_row_is_an_error(row in everything(), cut: prop::sample::Index) {
            let bytes = row.to_bytes();
            prop_assert!(Everything::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn other_versions_and_left_overs_are_errors() {
        assert!(Everything::decode(&[6, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Everything::decode(&[7, 0, 0, 0, 0, 0, 0]).is_ok());
        assert!(Everything::decode(&[7, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
