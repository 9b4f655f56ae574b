//! Events and commands on the wire: reading what came, writing what goes out.

use divan::{AllocProfiler, Bencher, black_box};
use turnstile_engine::{Decoded, Encode, InputRecord, Offset, TimestampMs};
use turnstile_ticketing::commands::TicketCommand;
use turnstile_ticketing::events::{OrderEvent, TicketEvent};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ORDER_CREATE: &[u8] = br#"{"type":"order.create","commandId":"6f9619ff-8b86-4d01-a42d-00cf4fc964ff","orderId":"0e37df36-f698-41e6-a04d-d1a4a2f0b1c3","ticketId":"t-s-48151","userId":"u-623"}"#;
const TICKET_CREATE: &[u8] = br#"{"type":"ticket.create","commandId":"6f9619ff-8b86-4d01-a42d-00cf4fc964ff","id":"t-s-48151","title":"Concert 48151, row 1","price":486.51,"userId":"u-158"}"#;
const ORDER_CREATED: &[u8] = br#"{"type":"order.created","id":"0e37df36-f698-41e6-a04d-d1a4a2f0b1c3","userId":"u-623","ticketId":"t-s-48151","price":486.51,"status":"created","expiresAt":"2026-01-31T09:32:00.000Z","version":0}"#;
const TICKET_UPDATED: &[u8] = br#"{"type":"ticket.updated","id":"t-s-48151","title":"Concert 48151, row 1","price":486.51,"version":1,"userId":"u-158","orderId":"0e37df36-f698-41e6-a04d-d1a4a2f0b1c3"}"#;

fn main() {
    divan::main();
}

fn record(value: &[u8]) -> InputRecord<'_> {
    InputRecord {
        key: None,
        value: Some(value),
        headers: &[],
        timestamp: TimestampMs(1_769_851_800_000),
        offset: Offset(0),
        decoded: None,
    }
}

/// What a decoder made of a record that is for it.
fn message<T, E: std::fmt::Debug>(decoded: Result<Decoded<T>, E>) -> T {
    match decoded.expect("the record can be read") {
        Decoded::Message(message) => message,
        Decoded::Skip(reason) => panic!("skipped: {reason}"),
    }
}

fn encode(bencher: Bencher, message: &impl Encode) {
    let mut out = Vec::with_capacity(1024);
    bencher.bench_local(|| {
        out.clear();
        black_box(message).encode(&mut out);
        out.len()
    });
}

#[divan::bench]
fn decode_order_create() -> impl Sized {
    message(TicketCommand::decode(&record(black_box(ORDER_CREATE))))
}

#[divan::bench]
fn decode_ticket_create() -> impl Sized {
    message(TicketCommand::decode(&record(black_box(TICKET_CREATE))))
}

#[divan::bench]
fn decode_order_created() -> impl Sized {
    message(OrderEvent::decode(&record(black_box(ORDER_CREATED))))
}

#[divan::bench]
fn decode_ticket_updated() -> impl Sized {
    message(TicketEvent::decode(&record(black_box(TICKET_UPDATED))))
}

#[divan::bench]
fn encode_order_created(bencher: Bencher) {
    encode(
        bencher,
        &message(OrderEvent::decode(&record(ORDER_CREATED))),
    );
}

#[divan::bench]
fn encode_ticket_updated(bencher: Bencher) {
    encode(
        bencher,
        &message(TicketEvent::decode(&record(TICKET_UPDATED))),
    );
}
