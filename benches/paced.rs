//! Publishing by the clock: one event at a time on one connection, at the moments that the rate asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::{now_ns, seconds_between};
use crate::daemon::Daemon;
use crate::http::{Client, post_head};
use crate::insurance::{Dice, SEED, payload};
use crate::sink::Arrival;

/// Events of one type at a rate.
pub struct Paced<'a> {
    pub address: SocketAddr,
    pub key: &'a str,
    pub kind: &'a str,
    pub per_second: u32,
    pub duration: Duration,
}

/// One event that was published.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    pub event: u64,
    pub began_ns: u64,
    /// When the whole receipt was there.
    pub accepted_ns: u64,
}

impl<'a> Paced<'a> {
    pub fn new(daemon: &Daemon, key: &'a str, kind: &'a str, per_second: u32, duration: Duration) -> Self {
        Self { address: daemon.address, key, kind, per_second, duration }
    }

    /// Publishes; a moment that was missed is made up for at once.
    pub fn run(&self) -> Vec<Published> {
        let mut client = Client::connect(self.address, self.key);
        let body = format!(r#"{{"type":"{}","payload":{}}}"#, self.kind, payload(&mut Dice::new(SEED)));
        let request = post_head("/api/v1/events", self.key, "application/json", body.len()) + &body;
        let count = (self.duration.as_secs_f64() * f64::from(self.per_second)) as u32;
        let started = Instant::now();
        let publish = |number: u32| {
            let moment = started + Duration::from_secs(1) * number / self.per_second;
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            let began_ns = now_ns();
            let reply = client.send(request.as_bytes(), 201);
            let accepted_ns = now_ns();
            let receipt: serde_json::Value = serde_json::from_slice(&reply.body()).expect("a receipt is JSON");
            Published { event: receipt["id"].as_u64().expect("a receipt names the event"), began_ns, accepted_ns }
        };
        (0..count).map(publish).collect()
    }
}

/// Quantiles of seconds.
#[derive(Debug, Clone)]
pub struct Seconds(Vec<f64>);

impl Seconds {
    fn new(mut seconds: Vec<f64>) -> Self {
        assert!(!seconds.is_empty(), "nothing was measured");
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// How long the publisher waited for its receipts.
    pub fn to_accept(published: &[Published]) -> Self {
        Self::new(published.iter().map(|one| seconds_between(one.began_ns, one.accepted_ns)).collect())
    }

    /// From the receipt in the publisher's hands to the webhook in the receiver's; below zero when the webhook was there first.
    pub fn to_receive(published: &[Published], arrivals: &[Arrival]) -> Self {
        let mut first: HashMap<u64, u64> = HashMap::new();
        for arrival in arrivals {
            first.entry(arrival.event).or_insert(arrival.at_ns);
        }
        Self::new(published.iter().filter_map(|one| Some(seconds_between(one.accepted_ns, *first.get(&one.event)?))).collect())
    }

    pub fn quantile(&self, share: f64) -> f64 {
        let place = (self.0.len() as f64 * share).ceil() as usize;
        self.0[place.saturating_sub(1)]
    }

    /// Quantiles as text, in milliseconds.
    pub fn text(&self) -> String {
        [0.5, 0.95, 0.99].map(|share| format!("{:.2}", self.quantile(share) * 1e3)).join(" / ") + " ms"
    }
}
