//! Who asks for what, and what becomes of the winners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use turnstile_engine::clock;
use turnstile_ticketing::iso8601;

use super::client::{Client, Reply};
use super::tally::Tally;
use super::{DemoArgs, DemoError};

const SELLER: &str = "demo-seller";
const PAYS: &str = "tok_visa";
const DECLINED: &str = "tok_chargeDeclined";

/// How often an order that is to expire is read, or a ticket that is to follow its order.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The most times that the tickets nobody has paid for are raced for.
const ROUNDS_MAX: usize = 5;

/// How long tickets may lag behind their orders at the end.
const TICKETS_LAG_MAX: Duration = Duration::from_secs(30);

/// The order of a buyer who won, and what is known about it from answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Won {
    /// The order.
    pub(super) id: String,
    /// Its buyer.
    pub(super) buyer: String,
    /// Its ticket.
    pub(super) ticket: String,
    /// When its 201 came: from here on it held the ticket, if it did not end before.
    pub(super) held_from: Instant,
    /// Until here it certainly did, if any time is certain.
    pub(super) held_until: Option<Instant>,
    /// When its payment was asked for, if it was.
    pub(super) payment_asked: Option<Instant>,
    /// Its status as it was read last.
    pub(super) status: String,
}

/// A ticket as it was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FinalTicket {
    /// The ticket.
    pub(super) id: String,
    /// The order that it says it is reserved for.
    pub(super) order: Option<String>,
}

/// Everything that was learned.
#[derive(Debug, Clone)]
pub(super) struct Played {
    /// The tickets.
    pub(super) tickets: Vec<FinalTicket>,
    /// All orders that were ever answered 201.
    pub(super) orders: Vec<Won>,
}

/// What a winner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pays,
    IsDeclined,
    LetsItExpire,
}

/// The race.
pub(super) struct Race {
    play: Arc<Play>,
}

struct Play {
    client: Client,
    tally: Arc<Tally>,
    args: DemoArgs,
    /// How many may ask for an order at once; winners go on without waiting.
    permits: Semaphore,
}

impl Race {
    pub(super) fn new(client: Client, tally: Arc<Tally>, args: DemoArgs) -> Self {
        Self {
            play: Arc::new(Play {
                client,
                tally,
                permits: Semaphore::new(
                    usize::try_from(args.concurrency).unwrap_or(Semaphore::MAX_PERMITS),
                ),
                args,
            }),
        }
    }

    /// Plays it to the end.
    pub(super) async fn play(&self) -> Result<Played, DemoError> {
        let play = &self.play;
        let tickets = all((0..play.args.tickets).map(|number| {
            let play = play.clone();
            async move { play.create_ticket(number).await }
        }))
        .await?;

        let fates = [Fate::Pays, Fate::IsDeclined, Fate::LetsItExpire];
        let mut wanted: Vec<_> = tickets
            .iter()
            .cloned()
            .zip(fates.into_iter().cycle())
            .collect();
        let mut orders = Vec::new();
        for _ in 0..ROUNDS_MAX {
            orders.extend(self.round(wanted).await?);
            let sold = |ticket: &String| {
                orders
                    .iter()
                    .any(|order| order.ticket == *ticket && holds(order))
            };
            let free = tickets.iter().filter(|ticket| !sold(ticket));
            wanted = free.map(|ticket| (ticket.clone(), Fate::Pays)).collect();
            if wanted.is_empty() {
                break;
            }
        }

        let orders = all(orders.into_iter().map(|order| {
            let play = play.clone();
            async move { play.read_back(order).await }
        }))
        .await?;
        let holders = Arc::new(orders.clone());
        let tickets = all(tickets.into_iter().map(|ticket| {
            let (play, holders) = (play.clone(), holders.clone());
            async move { play.read_ticket(ticket, &holders).await }
        }))
        .await?;
        Ok(Played { tickets, orders })
    }

    /// All buyers ask for all these tickets. The first winner of each ticket meets the ticket's
    /// fate; anyone who gets it after that pays.
    async fn round(&self, tickets: Vec<(String, Fate)>) -> Result<Vec<Won>, DemoError> {
        let orders = all(tickets.into_iter().flat_map(|(ticket, fate)| {
            let first = Arc::new(AtomicBool::new(true));
            (0..self.play.args.buyers).map(move |number| {
                let (play, ticket, first) = (self.play.clone(), ticket.clone(), first.clone());
                async move {
                    let Some(won) = play.ask_for(ticket, format!("demo-buyer-{number}")).await?
                    else {
                        return Ok(None);
                    };
                    let fate = if first.swap(false, Relaxed) {
                        fate
                    } else {
                        Fate::Pays
                    };
                    play.meet(won, fate).await.map(Some)
                }
            })
        }))
        .await?;
        Ok(orders.into_iter().flatten().collect())
    }
}

/// Whether the order holds its ticket, by its status.
pub(super) fn holds(order: &Won) -> bool {
    is_live_status(&order.status)
}

fn is_live_status(status: &str) -> bool {
    matches!(status, "created" | "pending_payment" | "completed")
}

/// Whether the order that an answer shows certainly still holds its ticket when the answer comes,
/// at `now` as ISO-8601. An order that is requested again later may have ended, or be about to.
fn is_live(answer: &Reply, now: &str) -> bool {
    let status = answer.text("status");
    let may_have_expired = status != "completed" && answer.text("expiresAt").as_str() <= now;
    is_live_status(&status) && !may_have_expired
}

/// The results of all `works`, which run concurrently, in their order.
async fn all<T, F>(works: impl Iterator<Item = F>) -> Result<Vec<T>, DemoError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DemoError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (number, work) in works.enumerate() {
        running.spawn(async move { (number, work.await) });
    }
    let mut results = Vec::new();
    while let Some(done) = running.join_next().await {
        let (number, result) = done?;
        results.push((number, result?));
    }
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

impl Play {
    async fn create_ticket(&self, number: u32) -> Result<String, DemoError> {
        let body = json!({ "title": format!("Demo seat {}", number + 1), "price": 25.5 });
        let reply = self
            .client
            .post(SELLER, "/api/tickets", body)
            .await?
            .expect("creating a ticket", 201)?;
        self.tally.ticket_created();
        Ok(reply.text("id"))
    }

    async fn ask_for(&self, ticket: String, buyer: String) -> Result<Option<Won>, DemoError> {
        let permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let begun = Instant::now();
        let reply = self
            .client
            .post(&buyer, "/api/orders", json!({ "ticketId": ticket }))
            .await?;
        drop(permit);
        if !matches!(reply.status, 201 | 409) {
            return Err(reply.unexpected("an order"));
        }
        let (now, won) = (Instant::now(), reply.status == 201);
        self.tally
            .order_answered(won, begun.elapsed(), reply.repeats);
        let held_until = is_live(&reply, &iso8601(clock::now())).then_some(now);
        let (id, status) = (reply.text("id"), reply.text("status"));
        Ok(won.then_some(Won {
            id,
            buyer,
            ticket,
            held_from: now,
            held_until,
            payment_asked: None,
            status,
        }))
    }

    async fn meet(&self, order: Won, fate: Fate) -> Result<Won, DemoError> {
        match fate {
            Fate::Pays => self.pay(order, PAYS).await,
            Fate::IsDeclined => self.pay(order, DECLINED).await,
            Fate::LetsItExpire => self.let_expire(order).await,
        }
    }

    async fn pay(&self, mut order: Won, token: &str) -> Result<Won, DemoError> {
        order.payment_asked = Some(Instant::now());
        let body = json!({ "orderId": order.id, "token": token });
        let reply = self
            .client
            .post(&order.buyer, "/api/payments", body)
            .await?;
        // 409: with a short time to live, an order can expire before it is paid.
        if !matches!(reply.status, 201 | 402 | 409) {
            return Err(reply.unexpected("a payment"));
        }
        order.status = self.read_order(&order).await?.text("status");
        match order.status.as_str() {
            "completed" => self.tally.order_paid(),
            "failed" => self.tally.order_declined(),
            _ => return self.let_expire(order).await,
        }
        Ok(order)
    }

    async fn let_expire(&self, mut order: Won) -> Result<Won, DemoError> {
        let begun = Instant::now();
        while begun.elapsed() < self.args.patience {
            let asked = Instant::now();
            order.status = self.read_order(&order).await?.text("status");
            if !holds(&order) {
                self.tally.order_expired();
                return Ok(order);
            }
            order.held_until = Some(asked);
            sleep(LOOK_AGAIN).await;
        }
        let what = format!("the expiry of order {}", order.id);
        Err(DemoError::TooLate {
            what,
            waited: self.args.patience,
        })
    }

    async fn read_order(&self, order: &Won) -> Result<Reply, DemoError> {
        let path = format!("/api/orders/{}", order.id);
        self.client
            .get(&order.buyer, &path)
            .await?
            .expect("reading an order", 200)
    }

    async fn read_back(&self, mut order: Won) -> Result<Won, DemoError> {
        let asked = Instant::now();
        order.status = self.read_order(&order).await?.text("status");
        if holds(&order) {
            order.held_until = Some(asked);
        } else if order.status == "failed" {
            // Only its payment could end it like that, so it was live when payment was requested.
            order.held_until = order.held_until.max(order.payment_asked);
        }
        Ok(order)
    }

    /// The ticket, once it names its holder; after a while, whatever it names instead.
    async fn read_ticket(&self, id: String, orders: &[Won]) -> Result<FinalTicket, DemoError> {
        let holder = orders
            .iter()
            .find(|order| order.ticket == id && holds(order));
        let begun = Instant::now();
        loop {
            let path = format!("/api/tickets/{id}");
            let reply = self
                .client
                .get(SELLER, &path)
                .await?
                .expect("reading a ticket", 200)?;
            let order = reply.text("orderId");
            let order = (!order.is_empty()).then_some(order);
            if order.as_ref() == holder.map(|holder| &holder.id)
                || begun.elapsed() > TICKETS_LAG_MAX
            {
                return Ok(FinalTicket { id, order });
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_live_for_certain_until_it_ends_or_may_expire() {
        let expires_at = "2026-01-31T09:30:00.000Z";
        let (before, after) = ("2026-01-31T09:29:59.999Z", "2026-01-31T09:30:00.001Z");
        let live = |status: &str, now: &str| {
            let answer = Reply {
                status: 201,
                body: json!({"status": status, "expiresAt": expires_at}),
                repeats: 0,
            };
            is_live(&answer, now)
        };
        for status in ["created", "pending_payment"] {
            assert!(live(status, before), "{status}");
            assert!(!live(status, expires_at), "{status}");
            assert!(!live(status, after), "{status}");
        }
        assert!(live("completed", after));
        for status in ["cancelled", "failed", ""] {
            assert!(!live(status, before), "{status}");
        }
    }
}
