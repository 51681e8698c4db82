//! The engine at work: a thread with a runtime of its own, so that receivers never delay publishers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::alerts::Alert;
use super::core::{Core, Start};
use super::permits::PermitLimits;
use super::recorder::Recorder;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::subscription::{DeliveryId, LaneStatus, ReplayId, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::faults::Faults;
use crate::store::{LogEvent, ReadError, Replay, RetryRow, Store, relay_answers};
use crate::telemetry::metrics::DeliveryMetrics;
use crate::webhook::{Origins, OutgoingEvent, Report, Sender};

/// Commands that may wait for the engine.
const COMMANDS_MAX: usize = 1_024;
/// Ended attempts that are taken before the engine looks around.
const ENDED_AT_ONCE: usize = 256;
/// The longest that the engine sleeps while something is due by the clock, which may be moved.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The pause after the store could not be read.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// How long attempts under way may take to end after a signal; then they are given back.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// What an engine is made of.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How much may be in flight.
    pub limits: PermitLimits,
    /// What webhooks tell of where they come from.
    pub origins: Origins,
    /// What is counted.
    pub metrics: Arc<DeliveryMetrics>,
    /// Planted bugs.
    pub faults: Faults,
    /// Cancelled when the daemon stops.
    pub shutdown: CancellationToken,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ledger cannot be read.
    #[error("the state of the deliveries cannot be read: {0}")]
    Read(#[from] ReadError),
    /// No thread.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// What others ask of the engine.
#[derive(Debug)]
enum Command {
    Created(Arc<Subscription>, Position),
    Changed(Arc<Subscription>, oneshot::Sender<()>),
    Deleted(CompanyId, SubscriptionId, oneshot::Sender<()>),
    Owed(DeliveryId, RetryRow),
    Revived(Vec<(DeliveryId, RetryRow)>),
    Discard(DeliveryId, oneshot::Sender<bool>),
    Replay(Box<Replay>),
    ReplayCancelled(SubscriptionId, ReplayId),
    Status(SubscriptionId, oneshot::Sender<Option<LaneStatus>>),
    Expire(Timestamp, oneshot::Sender<()>),
}

/// Speaks to the engine; clones speak to the same one. When the engine has ended nobody answers any more, and what
/// it would have done, it does from the ledger at the next start.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
}

impl EngineHandle {
    async fn tell(&self, command: Command) {
        // An engine that has ended reads the ledger when it starts again.
        let _heard = self.commands.send(command).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        self.tell(command(sender)).await;
        receiver.await.ok()
    }

    /// A subscription was created, with a position row at `position`.
    pub async fn created(&self, subscription: Arc<Subscription>, position: Position) {
        self.tell(Command::Created(subscription, position)).await;
    }

    /// A subscription was changed, paused or resumed: when this is done, every attempt that starts follows the change.
    pub async fn changed(&self, subscription: Arc<Subscription>) {
        let _done = self.ask(|sender| Command::Changed(subscription, sender)).await;
    }

    /// A subscription was deleted. When this is done, no attempt starts for it any more.
    pub async fn deleted(&self, company: CompanyId, id: SubscriptionId) {
        let _heard = self.ask(|sender| Command::Deleted(company, id, sender)).await;
    }

    /// A delivery is owed by hand; its row is in the ledger.
    pub async fn owed(&self, delivery: DeliveryId, row: RetryRow) {
        self.tell(Command::Owed(delivery, row)).await;
    }

    /// Dead letters are owed by hand; these rows are in the ledger in the places of theirs.
    pub async fn revived(&self, rows: Vec<(DeliveryId, RetryRow)>) {
        self.tell(Command::Revived(rows)).await;
    }

    /// A replay was asked for; it is in the ledger.
    pub async fn replay(&self, replay: Replay) {
        self.tell(Command::Replay(Box::new(replay))).await;
    }

    /// A replay was cancelled.
    pub async fn replay_cancelled(&self, subscription: SubscriptionId, replay: ReplayId) {
        self.tell(Command::ReplayCancelled(subscription, replay)).await;
    }

    /// Stops owing a delivery. False when it is not owed, or is being attempted at the moment.
    pub async fn discard(&self, delivery: DeliveryId) -> bool {
        self.ask(|sender| Command::Discard(delivery, sender)).await.unwrap_or(false)
    }

    /// How a subscription's lane stands; none when it has nothing to do.
    pub async fn status(&self, id: SubscriptionId) -> Option<LaneStatus> {
        self.ask(|sender| Command::Status(id, sender)).await.flatten()
    }

    /// Expires what is older than `cutoff`; the record of it is on disk when this is done.
    pub async fn expire(&self, cutoff: Timestamp) {
        let _done = self.ask(|sender| Command::Expire(cutoff, sender)).await;
    }
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    thread: JoinHandle<()>,
    handle: EngineHandle,
}

impl Engine {
    /// Starts where the ledger says that the last run ended.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn start(store: Store, sender: Sender, options: EngineOptions) -> Result<Self, EngineError> {
        let now = store.now();
        let core = Core::new(store.clone(), options.limits, options.origins.clone(), Arc::clone(&options.metrics), options.faults, now)?;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (recorded_sender, recorded) = mpsc::unbounded_channel();
        let recorder = Recorder::start(store.clone(), recorded_sender)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let aside = Aside::start()?;
        let thread = std::thread::Builder::new().name("delivery".to_owned()).spawn(move || {
            let (ended_sender, ended) = mpsc::unbounded_channel();
            let (told_sender, told) = mpsc::unbounded_channel();
            let driver = Driver {
                dice: Dice::new(),
                core,
                store,
                sender,
                options,
                recorder,
                attempts: JoinSet::new(),
                aside: aside.runtime.clone(),
                ended_sender,
                told_sender,
                when_written: Vec::new(),
            };
            runtime.block_on(async {
                tokio::spawn(relay_answers());
                driver.run(receiver, ended, recorded, told).await;
            });
            // Before this runtime goes, which drives some of the other one's connections.
            aside.stop();
        })?;
        Ok(Self { thread, handle: EngineHandle { commands } })
    }

    /// Speaks to the engine.
    #[must_use]
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Waits for the end, after the shutdown was cancelled: attempts under way end or are given back, and what came of
    /// them is on disk.
    pub fn stop(self) {
        // A panic of the thread has been reported by its hook; there is nothing left to do here.
        let _ended = self.thread.join();
    }
}

/// How much less than everything else such attempts matter to the scheduler.
const ASIDE_NICENESS: i32 = 10;

/// A thread with a runtime for the attempts to receivers that have not proved to be well: connections that are opened for
/// nothing, answers without end. However much of that there is, the engine and the attempts to others do not wait behind it.
struct Aside {
    runtime: Handle,
    end: CancellationToken,
    thread: JoinHandle<()>,
}

impl Aside {
    fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("delivery-aside".to_owned()).spawn(move || {
            give_way();
            runtime.block_on(ended.cancelled());
        })?;
        Ok(Self { runtime: handle, end, thread })
    }

    /// Drops what is still under way.
    fn stop(self) {
        self.end.cancel();
        // A panic of the thread has been reported by its hook; there is nothing left to do here.
        let _ended = self.thread.join();
    }
}

/// Lets this thread go behind all others. Only Linux knows the priority of a thread; elsewhere it would be the process's.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // Without it the thread has the same share as any other, which is no fault.
        let _set = getpriority_process(None).and_then(|niceness| setpriority_process(None, niceness + ASIDE_NICENESS));
    }
}

/// An attempt that has ended.
struct Ended {
    delivery: DeliveryId,
    report: Report,
}

/// Chance for the jitter of retries (xorshift64*, Vigna 2014).
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let mut seed = [0; 8];
        // Without randomness the jitter is the same in every run, which harms nobody.
        let _filled = getrandom::fill(&mut seed);
        Self(u64::from_le_bytes(seed) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Gives the core time, network and disk.
struct Driver {
    core: Core,
    store: Store,
    sender: Sender,
    options: EngineOptions,
    recorder: Recorder,
    attempts: JoinSet<()>,
    /// Where attempts to receivers run that have not proved to be well.
    aside: Handle,
    ended_sender: mpsc::UnboundedSender<Ended>,
    told_sender: mpsc::UnboundedSender<(Alert, bool)>,
    dice: Dice,
    /// What is said once everything that has happened is on disk.
    when_written: Vec<Box<dyn FnOnce() + Send>>,
}

impl Driver {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut ended: mpsc::UnboundedReceiver<Ended>,
        mut recorded: mpsc::UnboundedReceiver<()>,
        mut told: mpsc::UnboundedReceiver<(Alert, bool)>,
    ) {
        let mut tail = self.store.watch_tail();
        let shutdown = self.options.shutdown.clone();
        loop {
            tail.borrow_and_update();
            let now = self.store.now();
            let pause = match self.core.step(now) {
                Ok(starts) => {
                    starts.into_iter().for_each(|start| self.attempt(start, now));
                    None
                }
                Err(error) => {
                    error!(%error, "The log cannot be read for deliveries: {error}");
                    Some(READ_PAUSE)
                }
            };
            self.publish_alerts(now);
            self.record(now, !self.when_written.is_empty());
            self.options.metrics.in_flight.set(i64::try_from(self.core.in_flight()).unwrap_or(i64::MAX));
            self.options.metrics.lanes.set(i64::try_from(self.core.lanes()).unwrap_or(i64::MAX));
            self.options.metrics.turns.inc();
            let until = match pause {
                Some(pause) => Some(pause),
                None => self.core.wakes_at(now).map(|at| at.since(now).min(LOOK_INTERVAL)),
            };
            let has_more = pause.is_none() && self.core.has_more();
            let nap = async {
                match until {
                    // What was started goes first; a timer would cost a millisecond.
                    _ if has_more => yield_now().await,
                    Some(time) => sleep(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(first) = ended.recv() => {
                    self.finish(first);
                    for _ in 0..ENDED_AT_ONCE {
                        let Ok(next) = ended.try_recv() else { break };
                        self.finish(next);
                    }
                }
                Some(()) = recorded.recv() => {
                    self.recorder.is_busy = false;
                }
                Some(command) = commands.recv() => self.obey(command),
                Some((alert, is_stored)) = told.recv() => self.hear(alert, is_stored),
                // Without subscriptions nobody is woken by what is published.
                _ = tail.changed(), if pause.is_none() && self.core.has_subscriptions() => {}
                () = nap => {}
            }
            // Finished tasks have said so; their handles are only to be dropped.
            while self.attempts.try_join_next().is_some() {}
        }
        // Whoever has asked something is not answered any more.
        drop(commands);
        self.end(ended, recorded).await;
    }

    fn attempt(&mut self, start: Start, now: Timestamp) {
        let (sender, ended) = (self.sender.clone(), self.ended_sender.clone());
        let is_aside = start.is_aside;
        let attempt = async move {
            let Start { delivery, target, event, number, .. } = start;
            let report = sender.send(&target, &outgoing(event, delivery.run), number, now).await;
            // The engine has ended and gives back what it does not know the end of.
            let _heard = ended.send(Ended { delivery, report });
        };
        if is_aside {
            self.attempts.spawn_on(attempt, &self.aside);
        } else {
            self.attempts.spawn(attempt);
        }
    }

    fn finish(&mut self, ended: Ended) {
        let chance = self.dice.next();
        let now = self.store.now();
        self.core.finish(ended.delivery, ended.report, now, chance);
    }

    fn record(&mut self, now: Timestamp, all: bool) {
        if self.recorder.is_busy {
            return;
        }
        if let Some(outcomes) = self.core.record(now, all) {
            self.recorder.record(outcomes);
        } else {
            // Nothing is on its way and nothing waits: what they wait for is on disk.
            for say in self.when_written.drain(..) {
                say();
            }
        }
    }

    fn publish_alerts(&mut self, now: Timestamp) {
        for (company, alert) in self.core.alerts(now) {
            let Some(event) = alert.to_event() else { continue };
            let (store, told) = (self.store.clone(), self.told_sender.clone());
            self.attempts.spawn(async move {
                let stored = match store.append(store.prepare(company, &event)) {
                    Ok(appending) => appending.await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &stored {
                    warn!(%error, "An alert could not be published: {error}");
                }
                let _heard = told.send((alert, stored.is_ok()));
            });
        }
    }

    fn hear(&mut self, alert: Alert, is_stored: bool) {
        let now = self.store.now();
        if is_stored {
            self.core.announced(&alert, now);
        } else {
            self.core.not_announced(alert, now);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Created(subscription, position) => self.core.created(subscription, position),
            Command::Changed(subscription, answer) => {
                self.core.changed(subscription);
                let _heard = answer.send(());
            }
            Command::Deleted(company, id, answer) => {
                self.core.deleted(company, id);
                let _heard = answer.send(());
            }
            Command::Owed(delivery, row) => self.core.owed_by_hand(delivery, row),
            Command::Revived(rows) => self.core.revived(rows),
            Command::Replay(replay) => self.core.replay(&replay),
            Command::ReplayCancelled(subscription, replay) => self.core.replay_cancelled(subscription, replay),
            Command::Discard(delivery, answer) => {
                let is_discarded = self.core.discarded(delivery);
                // The caller writes down next what it is instead: an earlier outcome must not come after that.
                self.when_written.push(Box::new(move || {
                    let _heard = answer.send(is_discarded);
                }));
            }
            Command::Status(id, answer) => {
                let _heard = answer.send(self.core.status(id));
            }
            Command::Expire(cutoff, answer) => {
                let now = self.store.now();
                match self.core.expire(cutoff, now) {
                    Ok(()) => self.when_written.push(Box::new(move || {
                        let _heard = answer.send(());
                    })),
                    Err(error) => error!(%error, "Expired deliveries could not be counted: {error}"),
                }
            }
        }
    }

    /// Nothing new is started; what is under way ends or is given back, and everything is written down.
    async fn end(mut self, mut ended: mpsc::UnboundedReceiver<Ended>, mut recorded: mpsc::UnboundedReceiver<()>) {
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        while self.core.in_flight() > 0 {
            tokio::select! {
                biased;
                Some(one) = ended.recv() => self.finish(one),
                Some(()) = recorded.recv() => self.recorder.is_busy = false,
                () = sleep_until(deadline) => break,
            }
            let now = self.store.now();
            self.record(now, false);
        }
        let left = self.core.in_flight();
        if left > 0 {
            warn!(attempts = left, "{left} attempts did not end in {} s; they are made again after the start", DRAIN_TIME_MAX.as_secs());
        }
        self.attempts.abort_all();
        let now = self.store.now();
        if let Some(outcomes) = self.core.record(now, true) {
            self.recorder.record(outcomes);
        }
        self.recorder.stop();
        info!("The delivery engine has ended");
    }
}

/// The event as the webhooks' layer takes it.
fn outgoing(event: LogEvent, run: u32) -> OutgoingEvent {
    OutgoingEvent {
        id: event.id,
        company: event.company,
        run,
        created: event.created,
        occurred: event.occurred,
        kind: event.kind.as_ref().to_owned(),
        version: event.version.as_ref().to_owned(),
        envelope: event.envelope,
        payload_start: event.payload_start,
        payload_length: event.payload_length,
        references: event.references,
    }
}
