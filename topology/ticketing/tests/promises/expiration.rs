//! What Expiration promises.

use std::time::Duration;

use turnstile_ticketing::Service;
use turnstile_ticketing::topics::{EXPIRATION, ORDERS};

use crate::said::{IN_TWO_MINUTES, order_created, order_ended};
use crate::world::World;

/// Expiration alone; what Orders says is said by the test.
fn expiration() -> World {
    World::of(&[Service::Expiration])
}

fn created(world: &mut World, order: &str) {
    world.event(ORDERS, order, &order_created(order, "t", IN_TWO_MINUTES));
}

#[test]
fn an_order_expires_at_its_time_and_never_before() {
    let mut world = expiration();
    created(&mut world, "o");
    world.advance(Duration::from_millis(119_999));
    assert!(world.read(EXPIRATION).is_empty());
    world.advance(Duration::from_millis(1));
    assert_eq!(world.types(EXPIRATION, "o"), ["expired"]);
}

#[test]
fn a_timer_fires_late_rather_than_never() {
    let mut world = expiration();
    created(&mut world, "o");
    let later = world.driver.now().plus(Duration::from_hours(72));
    world.driver.set_now(later);
    world.crash();
    world.run();
    assert_eq!(world.types(EXPIRATION, "o"), ["expired"]);
}

#[test]
fn a_timer_is_cancelled_when_its_order_finishes() {
    for kind in ["completed", "cancelled", "failed"] {
        let mut world = expiration();
        created(&mut world, "o");
        assert_eq!(world.driver.timers("expiration").len(), 1);
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        assert_eq!(world.driver.timers("expiration").len(), 0);
        world.advance(Duration::from_hours(1));
        assert!(world.read(EXPIRATION).is_empty(), "{kind}");
    }
}

#[test]
fn a_created_read_after_its_orders_end_sets_no_timer() {
    for kind in ["completed", "cancelled", "failed"] {
        let mut world = expiration();
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        world.crash();
        created(&mut world, "o");
        world.advance(Duration::from_hours(1));
        assert!(world.read(EXPIRATION).is_empty(), "{kind}");
    }
}

#[test]
fn an_order_expires_once_however_often_it_is_created() {
    let mut world = expiration();
    created(&mut world, "o");
    created(&mut world, "o");
    world.advance(Duration::from_mins(2));
    created(&mut world, "o");
    world.advance(Duration::from_hours(1));
    assert_eq!(world.types(EXPIRATION, "o"), ["expired"]);
}

#[test]
fn an_expired_order_is_cancelled_and_its_ticket_free() {
    let mut world = World::new();
    world.create_ticket("t");
    world.order("t", "o");
    world.crash();
    world.advance(Duration::from_mins(2));
    assert_eq!(world.types(ORDERS, "o"), ["created", "cancelled"]);
    assert_eq!(world.reserved_for("t"), None);
    assert!(world.holders("t").is_empty());
}
