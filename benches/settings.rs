//! What a run of the benches measures, from its arguments and its environment.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// A part that can be asked for by name; they run in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Limits,
    Page,
    Get,
    Bearer,
    Filtered,
    Publish,
    Open,
    Seal,
    Disk,
    Deliver,
    Profiles,
    Fanout,
    Backlog,
    Order,
    Idle,
    Sick,
    Stream,
}

impl Group {
    pub const ALL: [Self; 17] = [
        Self::Limits,
        Self::Page,
        Self::Get,
        Self::Bearer,
        Self::Filtered,
        Self::Publish,
        Self::Open,
        Self::Seal,
        Self::Disk,
        Self::Deliver,
        Self::Profiles,
        Self::Fanout,
        Self::Backlog,
        Self::Order,
        Self::Idle,
        Self::Sick,
        Self::Stream,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Page => "page",
            Self::Get => "get",
            Self::Bearer => "bearer",
            Self::Filtered => "filtered",
            Self::Publish => "publish",
            Self::Open => "open",
            Self::Seal => "seal",
            Self::Disk => "disk",
            Self::Deliver => "deliver",
            Self::Profiles => "profiles",
            Self::Fanout => "fanout",
            Self::Backlog => "backlog",
            Self::Order => "order",
            Self::Idle => "idle",
            Self::Sick => "sick",
            Self::Stream => "stream",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub groups: Vec<Group>,
    /// Events in the large store; the small one holds a tenth of them.
    pub events: u64,
    /// Events of the day's mixture.
    pub day_events: u64,
    /// Webhooks of one round.
    pub deliveries: u64,
    /// Idle subscriptions, where there are many.
    pub subscriptions: u64,
    /// Open streams, where there are many.
    pub streams: usize,
    /// How often each contestant runs; figures are medians.
    pub rounds: usize,
    /// Length of one round of one contestant.
    pub round: Duration,
}

pub const USAGE: &str = "usage: cargo bench [-- GROUP...]
groups: page get bearer filtered publish open seal disk deliver profiles fanout backlog order idle sick stream (default: these); limits (the limits alone)
environment: LUTINE_BENCH_EVENTS (300000) events in the large store; the small one has a tenth
             LUTINE_BENCH_DAY_EVENTS (60000) events of the day's mixture
             LUTINE_BENCH_DELIVERIES (20000) webhooks of one round
             LUTINE_BENCH_SUBSCRIPTIONS (10000) idle subscriptions; 100000 take about 20 s to make
             LUTINE_BENCH_STREAMS (10000) open streams; each is an open file here and there
             LUTINE_BENCH_ROUNDS (5) and LUTINE_BENCH_SECONDS (1.2) rounds of each contestant and their length";

impl Settings {
    /// # Errors
    /// A sentence, for an argument or a variable that is not understood.
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut groups = Vec::new();
        // Cargo adds `--bench`; other options have no meaning here and may be Cargo's as well.
        for name in arguments.filter(|argument| !argument.starts_with('-')) {
            let group = Group::ALL.into_iter().find(|group| group.name() == name);
            groups.push(group.ok_or_else(|| format!("`{name}` is no group"))?);
        }
        if groups.is_empty() {
            // Each of the others measures its limits itself, in turn with the daemon.
            groups.extend(Group::ALL.into_iter().filter(|group| *group != Group::Limits));
        }
        let settings = Self {
            groups,
            events: variable("LUTINE_BENCH_EVENTS", 300_000)?,
            day_events: variable("LUTINE_BENCH_DAY_EVENTS", 60_000)?,
            deliveries: variable("LUTINE_BENCH_DELIVERIES", 20_000)?,
            subscriptions: variable("LUTINE_BENCH_SUBSCRIPTIONS", 10_000)?,
            streams: variable("LUTINE_BENCH_STREAMS", 10_000)?,
            rounds: variable("LUTINE_BENCH_ROUNDS", 5)?,
            round: Duration::try_from_secs_f64(variable("LUTINE_BENCH_SECONDS", 1.2)?).map_err(|error| error.to_string())?,
        };
        if settings.events < 100_000 || settings.day_events < 1_000 || settings.rounds == 0 {
            return Err("at least 100000 events, 1000 events of the day and 1 round are needed".to_owned());
        }
        if settings.deliveries < 2_000 || settings.subscriptions == 0 || settings.streams == 0 {
            return Err("at least 2000 deliveries, 1 subscription and 1 stream are needed".to_owned());
        }
        Ok(settings)
    }

    pub fn asks_for(&self, group: Group) -> bool {
        self.groups.contains(&group)
    }
}

fn variable<T: FromStr<Err: Display>>(name: &str, default: T) -> Result<T, String> {
    match std::env::var(name) {
        Ok(text) => text.replace('_', "").parse().map_err(|error| format!("{name}={text}: {error}")),
        Err(_) => Ok(default),
    }
}
