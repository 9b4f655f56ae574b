//! Orders from the command to everything that follows: reserved, created, announced,
//! the ticket updated, the timer set; all commits on the way included.
//!
//! On the topology test driver, so on stores and topics in memory: what the four
//! services and the engine do is in the figure, Kafka and the disk are not.

use divan::{AllocProfiler, Bencher};
use turnstile_engine::TopologyTestDriver;
use turnstile_ticketing::{TicketingConfig, topics, topology};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ORDERS: u32 = 500;

fn main() {
    divan::main();
}

/// The four services, tickets that can be ordered, and the commands that order them.
fn driver() -> TopologyTestDriver {
    let ticketing = topology(&TicketingConfig::default()).expect("the declaration has no fault");
    let mut driver =
        TopologyTestDriver::new(ticketing.topology, 1).expect("the topology fits its topics");
    for number in 0..ORDERS {
        let command = format!(
            r#"{{"type":"ticket.create","commandId":"c-{number}","id":"t-{number}","title":"Concert {number}","price":25,"userId":"u-1"}}"#
        );
        let key = format!("t-{number}");
        driver.pipe(
            topics::TICKET_COMMANDS,
            Some(&key),
            Some(command.as_bytes()),
        );
    }
    driver.run().expect("no task stops");
    for number in 0..ORDERS {
        let command = format!(
            r#"{{"type":"order.create","commandId":"o-{number}","orderId":"{number:08x}-f698-41e6-a04d-d1a4a2f0b1c3","ticketId":"t-{number}","userId":"u-2"}}"#
        );
        let key = format!("t-{number}");
        driver.pipe(
            topics::TICKET_COMMANDS,
            Some(&key),
            Some(command.as_bytes()),
        );
    }
    driver
}

#[divan::bench(sample_count = 30, sample_size = 1)]
fn order(bencher: Bencher) {
    bencher
        .counter(ORDERS)
        .with_inputs(driver)
        .bench_local_values(|mut driver| {
            driver.run().expect("no task stops");
            assert_eq!(driver.all(topics::ORDERS).len(), ORDERS as usize);
            driver
        });
}
