//! Subscriptions, deliveries, attempts and what the engine reads, on a data directory that each test drives by hand.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Memory};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::disk::DataDirectory;
use super::faults::Faults;
use super::*;
use crate::domain::company::NewCompany;
use crate::domain::event::EventVersion;
use crate::domain::filter::TypeFilter;
use crate::domain::health::Health;
use crate::domain::profile::{
    BodyForm, Handshake, KeepResponse, OnExhausted, Overrides, PayloadAs, PrivateKeyPem, Profile, SignatureForm, StatusSet,
};
use crate::domain::retry::ErrorClass;
use crate::domain::subscription::{
    Auth, ClientCredentials, Credential, DeliveryId, Ordering, Secret, Standing, Subscription, SubscriptionId, TokenMethod, Wishes,
};

const RETENTION: Duration = Duration::from_secs(3600);
const SEGMENT_AGE: Duration = Duration::from_secs(600);
/// A file of attempts holds a quarter of it.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const COMPANY: CompanyId = CompanyId(1);
const OTHER: CompanyId = CompanyId(2);

/// Microseconds since the epoch; only the test moves it.
#[derive(Debug)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Memory::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Memory::Relaxed))
    }
}

fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("without threads every act is done at once"),
    }
}

fn actor() -> Actor {
    Actor { name: "local".to_owned(), request_id: None }
}

/// An event of a type, with `@` and its version.
fn event(kind: &str) -> NewEvent {
    let (kind, version) = kind.split_once('@').unwrap_or((kind, "1"));
    NewEvent {
        kind: kind.parse().unwrap(),
        version: version.parse::<EventVersion>().unwrap(),
        payload: "{\"a\":\"b\"}".to_owned(),
        metadata: "{}".to_owned(),
        dedupe_key: None,
        references: None,
        occurred_at: None,
    }
}

fn filter(list: &str) -> TypeFilter {
    if list.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(list).unwrap() }
}

fn wishes(types: &str) -> Wishes {
    Wishes {
        name: "portal".to_owned(),
        url: "https://partner.example/hooks".to_owned(),
        types: types.split(',').filter(|entry| !entry.is_empty()).map(str::to_owned).collect(),
        filter: filter(types),
        profile: Profile::Standard,
        overrides: Overrides::default(),
        auth: Auth::None,
        headers: Vec::new(),
        ordering: Ordering::Parallel,
        ordering_key: None,
        max_in_flight: 16,
        rate_per_minute: 0,
    }
}

struct Bench {
    folder: tempfile::TempDir,
    clock: Arc<TestClock>,
    store: Store,
}

fn open(folder: &tempfile::TempDir, clock: &Arc<TestClock>, faults: Faults) -> Store {
    let options = StoreOptions {
        retention: RETENTION,
        segment_bytes_max: SEGMENT_BYTES,
        segment_age_max: SEGMENT_AGE,
        queue_events_max: 10_000,
        queue_bytes_max: 10_000_000,
        metrics: Arc::default(),
    };
    let disk = Arc::new(DataDirectory::open(folder.path()).unwrap());
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Store::open(disk, clock, &MasterKey::new([9; 32]), options, faults, FaultSink::new(|_| {})).unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::with(Faults::default())
    }

    fn with(faults: Faults) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // 2026-11-22T10:00:00Z: midnight is far.
        let clock = Arc::new(TestClock(AtomicU64::new(1_795_341_600_000_000)));
        let store = open(&folder, &clock, faults);
        for slug in ["acme", "other"] {
            let new = NewCompany { slug: slug.parse().unwrap(), country: None, name: slug.to_owned() };
            now_or_never(store.create_company(new, &actor())).unwrap();
        }
        Self { folder, clock, store }
    }

    fn reopen(self) -> Self {
        let Self { folder, clock, store } = self;
        drop(store);
        let store = open(&folder, &clock, Faults::default());
        Self { folder, clock, store }
    }

    fn advance(&self, span: Duration) {
        self.clock.0.fetch_add(span.as_micros() as u64, Memory::Relaxed);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Publishes events in one commit.
    fn publish(&self, events: &[(CompanyId, &str)]) -> Vec<Position> {
        let appending: Vec<_> =
            events.iter().map(|(company, kind)| self.store.append(self.store.prepare(*company, &event(kind))).unwrap()).collect();
        self.store.turn().unwrap();
        self.advance(Duration::from_millis(10));
        let receipts = appending.into_iter().map(|one| now_or_never(one).unwrap());
        receipts.map(|receipt| Position { created: receipt.created, id: receipt.id }).collect()
    }

    fn publish_one(&self, kind: &str) -> Position {
        self.publish(&[(COMPANY, kind)])[0]
    }

    fn rotate(&self) {
        self.advance(SEGMENT_AGE);
        self.store.turn().unwrap();
    }

    fn seal(&self) {
        self.rotate();
        while self.store.maintain().unwrap() {}
    }

    fn subscribe(&self, types: &str, start: Position) -> Arc<Subscription> {
        now_or_never(self.store.create_subscription(COMPANY, wishes(types), Secret([7; 32]), start, &actor())).unwrap()
    }

    fn record(&self, outcomes: Outcomes) {
        self.store.record_outcomes(&outcomes).unwrap();
    }

    fn attempt(&self, subscription: &Subscription, event: EventId, number: u32, delivered: bool) -> AttemptRow {
        AttemptRow {
            delivery: DeliveryId { subscription: subscription.id, event, run: 0 },
            number,
            started: self.now(),
            duration: Duration::from_millis(12),
            address: Some("192.0.2.7".parse().unwrap()),
            status: Some(if delivered { 200 } else { 500 }),
            error_class: (!delivered).then_some(ErrorClass::Status),
            error: (!delivered).then(|| "500 Internal Server Error".to_owned()),
            excerpt: "oops".to_owned(),
            truncated: false,
            next_due: (!delivered).then(|| self.now().after(Duration::from_secs(5))),
            kind: "claim.created".to_owned(),
            event_created: self.now(),
            delivered,
        }
    }

    fn resumes(&self, subscription: &Subscription) -> u32 {
        self.store.subscription(subscription.id).unwrap().resumes
    }

    fn state(&self, subscription: &Subscription, event: EventId) -> Option<DeliveryStateName> {
        self.store.delivery(subscription, event).unwrap().map(|view| view.state)
    }

    fn ids(&self, query: &DeliveriesQuery<'_>) -> Vec<u64> {
        self.store.deliveries(query).unwrap().views.iter().map(|view| view.id.event.0).collect()
    }
}

fn id(subscription: &Subscription, event: EventId) -> DeliveryId {
    DeliveryId { subscription: subscription.id, event, run: 0 }
}

fn placed(position: Position, settled: &[u64]) -> Option<PositionRow> {
    Some(PositionRow { position, settled: settled.iter().copied().map(EventId).collect() })
}

fn retry(bench: &Bench) -> RetryRow {
    RetryRow { attempts: 1, due: bench.now().after(Duration::from_secs(5)), created: bench.now(), key: None }
}

fn dead(bench: &Bench) -> DeadRow {
    DeadRow { attempts: 3, at: bench.now(), created: bench.now(), reason: DeadReason::Exhausted, announced: false }
}

fn closed(bench: &Bench, state: CloseState) -> ClosedRow {
    ClosedRow { state, at: bench.now(), created: bench.now(), reason: "not wanted".to_owned(), attempts: 2 }
}

#[test]
fn a_subscription_reads_back_after_a_restart_with_everything_it_was_given() {
    let bench = Bench::new();
    let wanted = Wishes {
        overrides: Overrides {
            body: Some(BodyForm::Envelope),
            content_type: Some("application/json;charset=utf-8".to_owned()),
            signature: Some(SignatureForm::None),
            signature_header: Some("X-Sign".to_owned()),
            success: Some(StatusSet::parse(["200-299", "304"]).unwrap()),
            lenient_success: Some(true),
            retry_schedule_ms: Some(vec![1, 2_000]),
            timeout_ms: Some(3_000),
            payload_as: Some(PayloadAs::Object),
            keep_response: Some(KeepResponse::None),
            handshake: Some(Handshake::None),
            cloud_events_source: Some("/source".to_owned()),
            cloud_events_type_prefix: Some("com.example.".to_owned()),
            on_exhausted: Some(OnExhausted::Suspend),
            ca_bundle: Some("a bundle".to_owned()),
            client_certificate: Some("a certificate".to_owned()),
            client_key: Some(PrivateKeyPem("a-key-nobody-knows".to_owned())),
        },
        profile: Profile::Envelope,
        auth: Auth::OAuth2(Box::new(ClientCredentials {
            token_url: "https://id.example/token".to_owned(),
            client_id: "lutine".to_owned(),
            method: TokenMethod::Post,
            credential: Credential("a-password-nobody-knows".to_owned()),
            scope: None,
            audience: Some("partner".to_owned()),
        })),
        headers: vec![("X-Partner".to_owned(), "7".to_owned())],
        ordering: Ordering::Key,
        ordering_key: Some("/claim/id".parse().unwrap()),
        ..wishes("claim.*,policy.bound@2")
    };
    let secret = Secret(*b"a secret that nobody is to find!");
    let created =
        now_or_never(bench.store.create_subscription(COMPANY, wanted.clone(), secret.clone(), Position::START, &actor())).unwrap();
    assert_eq!((created.id, &created.wishes, &created.secret), (SubscriptionId(1), &wanted, &secret));
    let plain = bench.subscribe("", Position::START);
    let bench = bench.reopen();
    assert_eq!(bench.store.subscription(created.id), Some(Arc::clone(&created)));
    assert_eq!(bench.store.subscriptions_of(COMPANY), [Arc::clone(&created), Arc::clone(&plain)]);
    assert_eq!(bench.store.subscriptions_of(OTHER), []);
    assert_eq!(bench.store.all_subscriptions(), [created, plain]);
    let ledger = std::fs::read(bench.folder.path().join("ledger.redb")).unwrap();
    let is_there = |text: &[u8]| ledger.windows(text.len()).any(|window| window == text);
    assert!(is_there(b"partner.example"));
    assert!(!is_there(b"a-password-nobody-knows") && !is_there(b"a-key-nobody-knows") && !is_there(&secret.0));
}

#[test]
fn a_subscription_of_no_company_is_refused() {
    let bench = Bench::new();
    let nobody = CompanyId(9);
    let refused = now_or_never(bench.store.create_subscription(nobody, wishes(""), Secret([0; 32]), Position::START, &actor()));
    assert_eq!(refused, Err(SubscriptionError::NoSuchCompany(nobody)));
}

#[test]
fn changes_are_seen_at_once_and_after_a_restart_and_only_by_their_company() {
    let bench = Bench::new();
    let subscription = bench.subscribe("claim.*", Position::START);
    let change = |company, change| now_or_never(bench.store.change_subscription(subscription.id, company, change, &actor())).unwrap();
    assert_eq!(change(Some(OTHER), SubscriptionChange::Standing(Standing::Paused)), None);
    change(Some(COMPANY), SubscriptionChange::Standing(Standing::Paused)).unwrap();
    let wanted = Wishes { url: "https://new.example/".to_owned(), ..wishes("policy.*") };
    change(None, SubscriptionChange::Wishes(Box::new(wanted.clone()))).unwrap();
    let seen = bench.store.subscription(subscription.id).unwrap();
    assert_eq!((&seen.wishes, seen.standing, &seen.secret), (&wanted, Standing::Paused, &subscription.secret));
    assert_eq!(bench.store.audit(None, 1).unwrap()[0].act, "subscription.change");
    let bench = bench.reopen();
    assert_eq!(bench.store.subscription(subscription.id), Some(seen));
}

#[test]
fn the_report_of_a_receiver_does_not_undo_what_a_person_said() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    let report = |standing, health| {
        bench.record(Outcomes {
            receivers: vec![ReceiverNote { subscription: subscription.id, standing, health, resumes: bench.resumes(&subscription) }],
            ..Outcomes::default()
        });
        let seen = bench.store.subscription(subscription.id).unwrap();
        (seen.standing, seen.health)
    };
    let change = |change| drop(now_or_never(bench.store.change_subscription(subscription.id, None, change, &actor())).unwrap());
    let healths = [
        Health::Sound { failing: Some((3, bench.now())) },
        Health::Probing { since: bench.now(), pause: Duration::from_secs(10), next: bench.now() },
        Health::Recovering { window: 4, successes: 2 },
        Health::GivenUp,
    ];
    for health in healths {
        assert_eq!(report(Standing::Active, health), (Standing::Active, health));
    }
    change(SubscriptionChange::Standing(Standing::Paused));
    assert_eq!(report(Standing::Active, healths[1]), (Standing::Paused, healths[1]));
    assert_eq!(report(Standing::Disabled, healths[1]), (Standing::Paused, healths[1]));
    change(SubscriptionChange::Resume);
    let seen = bench.store.subscription(subscription.id).unwrap();
    assert_eq!((seen.standing, seen.health), (Standing::Active, Health::default()));
    assert_eq!(report(Standing::Disabled, healths[2]).0, Standing::Disabled);
    let bench = bench.reopen();
    let seen = bench.store.subscription(subscription.id).unwrap();
    assert_eq!((seen.standing, seen.health), (Standing::Disabled, healths[2]));
}

#[test]
fn the_report_of_a_receiver_from_before_a_resume_comes_too_late() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    let resumed = now_or_never(bench.store.change_subscription(subscription.id, None, SubscriptionChange::Resume, &actor())).unwrap();
    assert_eq!(resumed.map(|resumed| resumed.resumes), Some(1));
    let note = |resumes| ReceiverNote { subscription: subscription.id, standing: Standing::Disabled, health: Health::GivenUp, resumes };
    let standing = || bench.store.subscription(subscription.id).unwrap().standing;
    bench.record(Outcomes { receivers: vec![note(0)], ..Outcomes::default() });
    assert_eq!(standing(), Standing::Active);
    bench.record(Outcomes { receivers: vec![note(1)], ..Outcomes::default() });
    assert_eq!(standing(), Standing::Disabled);
}

#[test]
fn a_secret_that_was_replaced_is_kept_while_it_counts_and_no_longer() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    let rotated = SubscriptionChange::Rotate { secret: Secret([8; 32]), until: bench.now().after(Duration::from_secs(60)) };
    now_or_never(bench.store.change_subscription(subscription.id, None, rotated, &actor())).unwrap();
    let previous = |bench: &Bench| bench.store.subscription(subscription.id).unwrap().previous.clone().map(|previous| previous.secret);
    let bench = bench.reopen();
    bench.advance(Duration::from_secs(59));
    bench.store.drop_expired().unwrap();
    assert_eq!(previous(&bench), Some(subscription.secret.clone()));
    bench.advance(Duration::from_secs(1));
    bench.store.drop_expired().unwrap();
    assert_eq!(previous(&bench), None);
    let bench = bench.reopen();
    assert_eq!((previous(&bench), &bench.store.subscription(subscription.id).unwrap().secret), (None, &Secret([8; 32])));
}

#[test]
fn a_replay_reads_back_with_its_progress_until_it_is_forgotten() {
    let bench = Bench::new();
    let events: Vec<Position> = (0..3).map(|_| bench.publish_one("claim.created")).collect();
    let subscription = bench.subscribe("", Position::START);
    let selection =
        Selection { filter: filter("claim.*"), after: events[0], until: events[2], events: Some([events[1].id, events[2].id].into()) };
    let new = NewReplay { subscription: subscription.id, selection, count: 2, rate_per_minute: 60 };
    let created = now_or_never(bench.store.create_replay(COMPANY, new.clone(), &actor())).unwrap();
    let progress =
        ReplayProgress { state: ReplayState::Running, place: PositionRow { position: events[1], settled: vec![] }, done: 1, ended: None };
    let delivery = DeliveryId { run: created.id.0, ..id(&subscription, events[2].id) };
    let owed = (delivery, DeliveryRow::Retry(retry(&bench)));
    bench.record(Outcomes { rows: vec![owed.clone()], replays: vec![(created.id, progress.clone())], ..Outcomes::default() });
    let bench = bench.reopen();
    let known = Replay { progress, ..created };
    assert_eq!(bench.store.replay(known.id).unwrap(), Some(known.clone()));
    let state = bench.store.delivery_state().unwrap();
    assert_eq!(state.replays, std::slice::from_ref(&known));
    assert_eq!(state.retries[&(subscription.id, known.id.0)].len(), 1);
    assert_eq!(now_or_never(bench.store.cancel_replay(OTHER, known.id, &actor())), Err(ReplayError::Unknown));
    assert_eq!(now_or_never(bench.store.cancel_replay(COMPANY, known.id, &actor())), Ok(subscription.id));
    assert_eq!(now_or_never(bench.store.cancel_replay(COMPANY, known.id, &actor())), Err(ReplayError::Ended("cancelled")));
    // What the engine still had in hand owes nothing any more.
    let done = ReplayProgress { state: ReplayState::Done, done: 2, ended: Some(bench.now()), ..known.progress.clone() };
    bench.record(Outcomes { rows: vec![owed], replays: vec![(known.id, done)], ..Outcomes::default() });
    let ended = bench.store.replay(known.id).unwrap().unwrap();
    assert_eq!((ended.progress.state, ended.progress.done), (ReplayState::Cancelled, 2));
    let state = bench.store.delivery_state().unwrap();
    assert!(state.replays.is_empty() && state.retries.is_empty());
    let view = bench.store.delivery_of(&subscription, delivery).unwrap().unwrap();
    assert_eq!((view.state, view.reason.as_deref()), (DeliveryStateName::Cancelled, Some("replay 1 was cancelled")));
    let next = now_or_never(bench.store.create_replay(COMPANY, new, &actor())).unwrap();
    assert_eq!(next.id.0, 2);
    assert_eq!(bench.store.replays_of(COMPANY).unwrap().len(), 2);
    assert_eq!(bench.store.replays_of(OTHER).unwrap(), []);
}

#[test]
fn a_deleted_subscription_takes_its_position_along_and_leaves_its_number_unused() {
    let bench = Bench::new();
    let first = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    bench.record(Outcomes { rows: vec![(id(&subscription, first.id), DeliveryRow::Retry(retry(&bench)))], ..Outcomes::default() });
    let delete = |company| now_or_never(bench.store.delete_subscription(subscription.id, company, &actor())).unwrap();
    assert!(!delete(Some(OTHER)));
    assert!(delete(Some(COMPANY)));
    assert!(!delete(None));
    // What the engine still had in hand finds nobody.
    bench.record(Outcomes {
        rows: vec![(id(&subscription, EventId(2)), DeliveryRow::Retry(retry(&bench)))],
        positions: vec![(subscription.id, placed(first, &[]))],
        receivers: vec![ReceiverNote { subscription: subscription.id, standing: Standing::Active, health: Health::GivenUp, resumes: 0 }],
        ..Outcomes::default()
    });
    let state = bench.store.delivery_state().unwrap();
    assert!(state.positions.is_empty() && state.retries.is_empty());
    let view = bench.store.delivery(&subscription, first.id).unwrap().unwrap();
    assert_eq!((view.state, view.reason.as_deref()), (DeliveryStateName::Cancelled, Some("the subscription was deleted")));
    let bench = bench.reopen();
    assert_eq!(bench.store.all_subscriptions(), []);
    assert_eq!(bench.subscribe("", first).id, SubscriptionId(2));
}

#[test]
fn the_engine_finds_after_a_restart_what_it_wrote() {
    let bench = Bench::new();
    let events: Vec<Position> = (0..9).map(|_| bench.publish_one("claim.created")).collect();
    let [one, two, three] = [0, 4, 2].map(|start: usize| bench.subscribe("", events[start]));
    let (row, letter) = (retry(&bench), dead(&bench));
    let refused = DeadRow { reason: DeadReason::Refused, announced: true, ..letter };
    bench.record(Outcomes {
        rows: vec![
            (id(&one, EventId(3)), DeliveryRow::Retry(row)),
            (id(&one, EventId(7)), DeliveryRow::Retry(row)),
            (id(&two, EventId(6)), DeliveryRow::Retry(row)),
            (id(&two, EventId(7)), DeliveryRow::Dead(letter)),
            (id(&two, EventId(8)), DeliveryRow::Dead(refused)),
        ],
        positions: vec![(one.id, placed(events[1], &[4, 5, 9])), (three.id, None)],
        settled_tail: Some(events[8]),
        ..Outcomes::default()
    });
    let bench = bench.reopen();
    let state = bench.store.delivery_state().unwrap();
    assert_eq!(state.settled_tail, events[8]);
    assert_eq!(state.positions.len(), 2);
    assert_eq!(Some(state.positions[&one.id].clone()), placed(events[1], &[4, 5, 9]));
    assert_eq!(Some(state.positions[&two.id].clone()), placed(events[4], &[]));
    assert_eq!(state.retries[&(one.id, 0)], [(EventId(3), row), (EventId(7), row)]);
    assert_eq!(state.retries[&(two.id, 0)], [(EventId(6), row)]);
    assert_eq!(state.unannounced, [(id(&two, EventId(7)), letter)]);
    bench.record(Outcomes {
        rows: vec![(id(&one, EventId(3)), DeliveryRow::Settled), (id(&one, EventId(7)), DeliveryRow::Dead(refused))],
        announced: vec![id(&two, EventId(7)), id(&two, EventId(6))],
        ..Outcomes::default()
    });
    let state = bench.store.delivery_state().unwrap();
    assert_eq!(state.retries.keys().collect::<Vec<_>>(), [&(two.id, 0)]);
    assert_eq!(state.unannounced, []);
}

#[test]
fn a_person_retries_and_discards_with_a_row_in_the_audit_log() {
    let bench = Bench::new();
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    bench.record(Outcomes {
        rows: vec![(id(&subscription, event.id), DeliveryRow::Dead(dead(&bench)))],
        positions: vec![(subscription.id, placed(event, &[]))],
        ..Outcomes::default()
    });
    let write = |row, act, reason| {
        now_or_never(bench.store.write_row(id(&subscription, event.id), row, &actor(), act, reason)).unwrap();
    };
    write(DeliveryRow::Retry(retry(&bench)), "delivery.retry", "");
    assert_eq!(bench.state(&subscription, event.id), Some(DeliveryStateName::Pending));
    assert_eq!(bench.store.delivery_state().unwrap().unannounced, []);
    write(DeliveryRow::Closed(closed(&bench, CloseState::Cancelled)), "delivery.discard", "not wanted");
    assert_eq!(bench.state(&subscription, event.id), Some(DeliveryStateName::Cancelled));
    let audit = bench.store.audit(None, 2).unwrap();
    let told: Vec<_> = audit.iter().map(|row| (row.act.as_str(), row.object.as_str(), row.detail.as_str())).collect();
    assert_eq!(told, [("delivery.discard", "delivery:1-1", "not wanted"), ("delivery.retry", "delivery:1-1", "")]);
}

#[test]
fn the_planted_bugs_do_what_they_say() {
    let bench = Bench::with(Faults { retry_lost_at_restart: true, ..Faults::default() });
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    let rows = vec![(id(&subscription, event.id), DeliveryRow::Retry(retry(&bench)))];
    bench.record(Outcomes { rows, positions: vec![(subscription.id, placed(event, &[]))], ..Outcomes::default() });
    assert!(bench.store.delivery_state().unwrap().retries.is_empty());
    let bench = Bench::with(Faults { position_before_outcome: true, ..Faults::default() });
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    let outcomes = Outcomes {
        rows: vec![(id(&subscription, event.id), DeliveryRow::Retry(retry(&bench)))],
        positions: vec![(subscription.id, placed(event, &[]))],
        ..Outcomes::default()
    };
    bench.record(outcomes);
    let state = bench.store.delivery_state().unwrap();
    assert_eq!((state.positions[&subscription.id].position, state.retries.len()), (event, 1));
}

#[test]
fn attempts_read_back_by_number_and_the_same_number_replaces() {
    let bench = Bench::new();
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    assert!(!bench.folder.path().join("attempts/1.redb").exists());
    let first = bench.attempt(&subscription, event.id, 1, false);
    let mut second = AttemptRow {
        address: Some("2001:db8::7".parse().unwrap()),
        status: None,
        error_class: Some(ErrorClass::Tls),
        ..bench.attempt(&subscription, event.id, 2, false)
    };
    let other = bench.attempt(&subscription, EventId(event.id.0 + 1), 1, true);
    bench.record(Outcomes { attempts: vec![second.clone(), other, first.clone()], ..Outcomes::default() });
    second.truncated = true;
    bench.record(Outcomes { attempts: vec![second.clone()], ..Outcomes::default() });
    bench.store.settle_attempts().unwrap();
    let bench = bench.reopen();
    let view = bench.store.delivery(&subscription, event.id).unwrap().unwrap();
    assert_eq!((view.state, view.attempts), (DeliveryStateName::Pending, vec![first, second]));
    assert_eq!(bench.store.verify().unwrap().faults, Vec::<String>::new());
}

#[test]
fn a_file_of_attempts_is_closed_by_age_and_by_size_and_never_changes_again() {
    let bench = Bench::new();
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    let record = |number, excerpt: &str| {
        let attempt = AttemptRow { excerpt: excerpt.to_owned(), ..bench.attempt(&subscription, event.id, number, false) };
        bench.record(Outcomes { attempts: vec![attempt], ..Outcomes::default() });
    };
    record(1, "");
    bench.advance(SEGMENT_AGE);
    record(2, "");
    let first = std::fs::read(bench.folder.path().join("attempts/1.redb")).unwrap();
    record(3, &"x".repeat(1024 * 1024));
    record(4, "");
    let files = |bench: &Bench| {
        let mut names: Vec<_> =
            std::fs::read_dir(bench.folder.path().join("attempts")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&bench), ["1.redb", "2.redb", "3.redb"]);
    for _ in 0..2 {
        let view = bench.store.delivery(&subscription, event.id).unwrap().unwrap();
        assert_eq!(view.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
    let bench = bench.reopen();
    let view = bench.store.delivery(&subscription, event.id).unwrap().unwrap();
    assert_eq!(view.attempts.len(), 4);
    assert!(first == std::fs::read(bench.folder.path().join("attempts/1.redb")).unwrap());
    bench.record(Outcomes { attempts: vec![bench.attempt(&subscription, event.id, 5, true)], ..Outcomes::default() });
    assert_eq!(files(&bench), ["1.redb", "2.redb", "3.redb"]);
    // The first file goes when its attempts are as old as the retention, the others ten minutes later.
    bench.advance(RETENTION - SEGMENT_AGE + Duration::from_secs(1));
    assert_eq!(bench.store.drop_expired().unwrap().attempt_files, 1);
    assert_eq!(files(&bench), ["2.redb", "3.redb"]);
    bench.advance(SEGMENT_AGE);
    assert_eq!(bench.store.drop_expired().unwrap().attempt_files, 2);
    let bench = bench.reopen();
    assert!(files(&bench).is_empty());
    bench.record(Outcomes { attempts: vec![bench.attempt(&subscription, event.id, 6, true)], ..Outcomes::default() });
    assert_eq!(files(&bench), ["1.redb"]);
}

#[test]
fn a_missing_or_foreign_file_of_attempts_is_refused() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    bench.record(Outcomes { attempts: vec![bench.attempt(&subscription, EventId(1), 1, true)], ..Outcomes::default() });
    let Bench { folder, clock, store } = bench;
    drop(store);
    let (one, two) = (folder.path().join("attempts/1.redb"), folder.path().join("attempts/2.redb"));
    std::fs::copy(&one, &two).unwrap();
    let opening = || {
        let disk = Arc::new(DataDirectory::open(folder.path()).unwrap());
        let options = StoreOptions {
            retention: RETENTION,
            segment_bytes_max: SEGMENT_BYTES,
            segment_age_max: SEGMENT_AGE,
            queue_events_max: 10,
            queue_bytes_max: 10_000,
            metrics: Arc::default(),
        };
        let clock = Arc::clone(&clock) as Arc<dyn Clock>;
        Store::open(disk, clock, &MasterKey::new([9; 32]), options, Faults::default(), FaultSink::new(|_| {}))
    };
    assert!(matches!(opening(), Err(OpenError::UnknownFile { name }) if name == "attempts/2.redb"));
    std::fs::remove_file(two).unwrap();
    std::fs::remove_file(one).unwrap();
    assert!(matches!(opening(), Err(OpenError::MissingFile { name }) if name == "attempts/1.redb"));
}

#[test]
fn damage_in_the_attempt_log_is_reported_and_not_served() {
    let bench = Bench::new();
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    let attempt = AttemptRow { excerpt: "the damaged one".to_owned(), ..bench.attempt(&subscription, event.id, 1, true) };
    bench.record(Outcomes { attempts: vec![attempt], ..Outcomes::default() });
    let Bench { folder, clock, store } = bench;
    drop(store);
    let path = folder.path().join("attempts/1.redb");
    let mut content = std::fs::read(&path).unwrap();
    let place = content.windows(15).position(|window| window == b"the damaged one").unwrap();
    content[place] ^= 1;
    std::fs::write(&path, content).unwrap();
    let store = open(&folder, &clock, Faults::default());
    assert!(store.delivery(&subscription, event.id).is_err());
    let faults = store.verify().unwrap().faults;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("attempts/1.redb, attempt 1 of delivery 1-1"), "{faults:?}");
}

#[test]
fn a_crash_between_the_two_commits_repeats_the_attempt() {
    let bench = Bench::new();
    let events = [bench.publish_one("claim.created"), bench.publish_one("claim.created")];
    let subscription = bench.subscribe("", Position::START);
    let failed = bench.attempt(&subscription, events[0].id, 1, false);
    bench.store.inner.append_attempts(&[failed, bench.attempt(&subscription, events[1].id, 1, true)]).unwrap();
    let bench = bench.reopen();
    let state = bench.store.delivery_state().unwrap();
    assert_eq!(Some(state.positions[&subscription.id].clone()), placed(Position::START, &[]));
    assert!(state.retries.is_empty());
    assert_eq!(bench.state(&subscription, events[0].id), Some(DeliveryStateName::Pending));
    let again = bench.attempt(&subscription, events[0].id, 1, true);
    bench.record(Outcomes {
        attempts: vec![again.clone()],
        positions: vec![(subscription.id, placed(events[1], &[]))],
        ..Outcomes::default()
    });
    let view = bench.store.delivery(&subscription, events[0].id).unwrap().unwrap();
    assert_eq!((view.state, view.attempts), (DeliveryStateName::Delivered, vec![again]));
}

/// A subscription with one delivery in each state: 3 and 8 delivered, 4 to be retried, 5 dead, 6 cancelled, 7 settled
/// without ever being owed, 9 and 11 never attempted, 10 not wanted; it started above 2.
fn every_state() -> (Bench, Arc<Subscription>) {
    let bench = Bench::new();
    let kinds = ["created", "created", "created", "closed", "created", "created", "created", "created", "created", "x", "closed"];
    let events: Vec<Position> = kinds
        .iter()
        .map(|kind| bench.publish_one(&if *kind == "x" { "policy.bound".to_owned() } else { format!("claim.{kind}") }))
        .collect();
    let subscription = bench.subscribe("claim.*", events[1]);
    let attempt = |event, number, delivered| bench.attempt(&subscription, EventId(event), number, delivered);
    bench.record(Outcomes {
        attempts: vec![attempt(3, 1, false), attempt(3, 2, true), attempt(4, 1, false), attempt(5, 1, false), attempt(8, 1, true)],
        rows: vec![
            (id(&subscription, EventId(4)), DeliveryRow::Retry(retry(&bench))),
            (id(&subscription, EventId(5)), DeliveryRow::Dead(dead(&bench))),
            (id(&subscription, EventId(6)), DeliveryRow::Closed(closed(&bench, CloseState::Cancelled))),
        ],
        positions: vec![(subscription.id, placed(events[6], &[8]))],
        ..Outcomes::default()
    });
    (bench, subscription)
}

#[test]
fn each_state_has_its_view() {
    use DeliveryStateName::{Cancelled, Dead, Delivered, Pending};
    let (bench, subscription) = every_state();
    for is_reopened in [false, true] {
        let states: Vec<_> = (1..=12).map(|event| bench.state(&subscription, EventId(event))).collect();
        let expected = [
            None,
            None,
            Some(Delivered),
            Some(Pending),
            Some(Dead),
            Some(Cancelled),
            None,
            Some(Delivered),
            Some(Pending),
            None,
            Some(Pending),
            None,
        ];
        assert_eq!(states, expected, "{is_reopened}");
        bench.seal();
    }
    let view = bench.store.delivery(&subscription, EventId(4)).unwrap().unwrap();
    assert_eq!((view.kind.as_deref(), view.attempts.len(), view.next_due.is_some()), (Some("claim.closed"), 1, true));
    let view = bench.store.delivery(&subscription, EventId(5)).unwrap().unwrap();
    assert_eq!(view.reason.as_deref(), Some("the retry schedule is exhausted"));
}

#[test]
fn the_list_goes_from_the_newest_down_in_pages_and_by_state_and_type() {
    let (bench, subscription) = every_state();
    let everything = TypeFilter::default();
    let query = DeliveriesQuery { subscription: &subscription, state: None, filter: &everything, before: None, limit: 50 };
    assert_eq!(bench.ids(&query), [11, 9, 8, 6, 5, 4, 3]);
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = bench.store.deliveries(&DeliveriesQuery { before, limit: 2, ..query.clone() }).unwrap();
        assert!(page.views.len() <= 2 && page.views.iter().all(|view| view.attempts.is_empty()));
        paged.extend(page.views.iter().map(|view| view.id.event.0));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(paged, [11, 9, 8, 6, 5, 4, 3]);
    let of_state = |state| bench.ids(&DeliveriesQuery { state: Some(state), ..query.clone() });
    assert_eq!(of_state(DeliveryStateName::Pending), [11, 9, 4]);
    assert_eq!(of_state(DeliveryStateName::Delivered), [8, 3]);
    assert_eq!(of_state(DeliveryStateName::Dead), [5]);
    assert_eq!(of_state(DeliveryStateName::Cancelled), [6]);
    assert_eq!(of_state(DeliveryStateName::Expired), [0_u64; 0]);
    assert_eq!(bench.ids(&DeliveriesQuery { filter: &filter("claim.closed"), ..query.clone() }), [11, 4]);
    assert_eq!(bench.ids(&DeliveriesQuery { before: Some((EventId(9), 0)), ..query.clone() }), [8, 6, 5, 4, 3]);
}

#[test]
fn a_long_list_is_whole_over_several_files_and_segments() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    let mut last = Position::START;
    for round in 0..5 {
        let events = bench.publish(&[(COMPANY, "claim.created"); 60]);
        let attempts: Vec<_> = events.iter().map(|event| bench.attempt(&subscription, event.id, 1, true)).collect();
        last = events[59];
        bench.record(Outcomes { attempts, positions: vec![(subscription.id, placed(last, &[]))], ..Outcomes::default() });
        if round < 3 {
            bench.seal();
        }
    }
    bench.publish(&[(COMPANY, "claim.created"); 70]);
    let everything = TypeFilter::default();
    let mut query = DeliveriesQuery { subscription: &subscription, state: None, filter: &everything, before: None, limit: 37 };
    let mut found = Vec::new();
    loop {
        let page = bench.store.deliveries(&query).unwrap();
        found.extend(page.views.iter().map(|view| (view.id.event.0, view.state)));
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let state = |event| if event > last.id.0 { DeliveryStateName::Pending } else { DeliveryStateName::Delivered };
    assert_eq!(found, (1..=370).rev().map(|event| (event, state(event))).collect::<Vec<_>>());
}

#[test]
fn a_list_of_large_events_is_whole_too() {
    let bench = Bench::new();
    let subscription = bench.subscribe("", Position::START);
    let payload = format!("\"{}\"", "x".repeat(250_000));
    for _ in 0..25 {
        let event = NewEvent { payload: payload.clone(), ..event("claim.created") };
        let appending = bench.store.append(bench.store.prepare(COMPANY, &event)).unwrap();
        bench.store.turn().unwrap();
        now_or_never(appending).unwrap();
        while bench.store.maintain().unwrap() {}
    }
    let everything = TypeFilter::default();
    let query = DeliveriesQuery { subscription: &subscription, state: None, filter: &everything, before: None, limit: 50 };
    assert_eq!(bench.ids(&query), (1..=25).rev().collect::<Vec<_>>());
}

#[test]
fn what_expires_is_told_for_a_month_and_everything_else_goes_with_the_segment() {
    let (bench, subscription) = every_state();
    bench.seal();
    let newest = bench.publish_one("claim.created");
    bench.advance(RETENTION);
    // The engine has not written anything down yet: what is open counts as expired, what has ended is gone.
    assert_eq!(bench.state(&subscription, EventId(4)), Some(DeliveryStateName::Expired));
    assert_eq!([3, 5, 6, 9].map(|event| bench.state(&subscription, EventId(event))), [None; 4]);
    bench.record(Outcomes {
        rows: vec![(id(&subscription, EventId(4)), DeliveryRow::Closed(closed(&bench, CloseState::Expired)))],
        expired: vec![(subscription.id, ExpiredRange { first: EventId(9), last: EventId(11), count: 2, at: bench.now() })],
        positions: vec![(subscription.id, placed(newest, &[]))],
        ..Outcomes::default()
    });
    let states = |bench: &Bench| [3, 4, 5, 6, 8, 9, 10, 11].map(|event| bench.state(&subscription, EventId(event)));
    let expired = Some(DeliveryStateName::Expired);
    assert_eq!(states(&bench), [None, expired, None, None, None, expired, None, expired]);
    assert_eq!(bench.store.drop_expired().unwrap().segments, 1);
    // Whether event 10 was wanted can no longer be told.
    assert_eq!(states(&bench), [None, expired, None, None, None, expired, expired, expired]);
    let view = bench.store.delivery(&subscription, EventId(4)).unwrap().unwrap();
    assert_eq!((view.reason.as_deref(), view.attempts.len()), (Some("not wanted"), 0));
    let bench = bench.reopen();
    let state = bench.store.delivery_state().unwrap();
    assert!(state.retries.is_empty() && state.unannounced.is_empty());
    bench.seal();
    bench.advance(Duration::from_secs(30 * 24 * 3600));
    bench.store.accept_clock();
    assert_eq!(bench.store.drop_expired().unwrap().segments, 1);
    assert_eq!(states(&bench), [None; 8]);
}

#[test]
fn a_retry_that_is_open_when_its_event_is_purged_becomes_expired() {
    let bench = Bench::new();
    let event = bench.publish_one("claim.created");
    let subscription = bench.subscribe("", Position::START);
    bench.record(Outcomes { rows: vec![(id(&subscription, event.id), DeliveryRow::Retry(retry(&bench)))], ..Outcomes::default() });
    bench.seal();
    bench.advance(RETENTION);
    assert_eq!(bench.store.drop_expired().unwrap().segments, 1);
    assert!(bench.store.delivery_state().unwrap().retries.is_empty());
    let view = bench.store.delivery(&subscription, event.id).unwrap().unwrap();
    assert_eq!((view.state, view.reason.as_deref()), (DeliveryStateName::Expired, Some("the event was purged")));
}

#[test]
fn a_reader_at_the_tail_gets_the_news_with_its_payload() {
    let bench = Bench::new();
    let read = |position, types: &str, limit| bench.store.read_after(COMPANY, position, &filter(types), limit).unwrap();
    let empty = read(Position::START, "", 10);
    assert_eq!((empty.events.len(), empty.reached, empty.is_behind), (0, Position::START, false));
    let events =
        bench.publish(&[(COMPANY, "Claim.Created"), (OTHER, "claim.created"), (COMPANY, "lutine.note"), (COMPANY, "policy.bound@2")]);
    let batch = read(Position::START, "", 10);
    assert_eq!(batch.events.iter().map(LogEvent::position).collect::<Vec<_>>(), [events[0], events[3]]);
    assert_eq!((batch.reached, batch.is_behind), (events[3], false));
    let first = &batch.events[0];
    assert_eq!((&*first.kind, &*first.version, first.is_own, first.company), ("Claim.Created", "1", false, COMPANY));
    assert_eq!(first.escaped_payload(), br#"{\"a\":\"b\"}"#);
    assert_eq!(first.envelope, bench.store.get(COMPANY, first.id).unwrap().unwrap());
    assert_eq!(&*batch.events[1].version, "2");
    let cut = read(Position::START, "", 1);
    assert_eq!((cut.events.len(), cut.reached, cut.is_behind), (1, events[0], true));
    let own = read(Position::START, "lutine.*", 1);
    assert_eq!((own.events[0].is_own, own.reached, own.is_behind), (true, events[3], false));
    let nothing = read(events[0], "claim.*", 5);
    assert_eq!((nothing.events.len(), nothing.reached), (0, events[3]));
    assert_eq!(bench.store.read_event(COMPANY, events[0].id).unwrap().as_ref(), Some(first));
    assert_eq!(bench.store.read_event(OTHER, events[0].id).unwrap(), None);
    assert_eq!(bench.store.read_event(COMPANY, EventId(99)).unwrap(), None);
}

#[test]
fn a_reader_far_behind_gets_everything_in_order_over_all_segments_but_what_has_expired() {
    let bench = Bench::new();
    for round in 0..4 {
        for _ in 0..10 {
            bench.publish(&[(COMPANY, "claim.created"), (OTHER, "claim.created"), (COMPANY, "policy.bound")]);
        }
        match round {
            0 | 1 => bench.seal(),
            2 => bench.rotate(),
            _ => {}
        }
    }
    let all = |types: &str| {
        let (mut position, mut found) = (Position::START, Vec::new());
        loop {
            let batch = bench.store.read_after(COMPANY, position, &filter(types), 7).unwrap();
            found.extend(batch.events.iter().map(|event| event.id.0));
            assert!(batch.is_behind || batch.reached == bench.store.tail());
            if !batch.is_behind {
                return found;
            }
            position = batch.reached;
        }
    };
    assert_eq!(all(""), (1..=120).filter(|number| number % 3 != 2).collect::<Vec<_>>());
    assert_eq!(all("policy.*"), (1..=40).map(|number| number * 3).collect::<Vec<_>>());
    bench.advance(RETENTION - 3 * SEGMENT_AGE + Duration::from_secs(1));
    assert_eq!(all("policy.*"), (11..=40).map(|number| number * 3).collect::<Vec<_>>());
    assert_eq!(bench.store.read_event(COMPANY, EventId(3)).unwrap(), None);
    assert_eq!(bench.store.cutoff(), bench.now().before(RETENTION));
    let counted = bench.store.count_matching(COMPANY, Position::START, bench.store.tail(), &filter("")).unwrap();
    assert_eq!((counted.count, counted.first.unwrap().id.0, counted.last.unwrap().id.0), (80, 1, 120));
}

/// What `kinds_after` says on the way from `position` to the tail.
fn kinds_up(bench: &Bench, mut position: Position) -> BTreeSet<(u32, String, String)> {
    let mut found = BTreeSet::new();
    loop {
        let after = bench.store.kinds_after(position).unwrap();
        if after.reached == position {
            assert!(after.kinds.is_empty());
            assert_eq!(position, bench.store.tail().max(position));
            return found;
        }
        assert!(after.reached > position && !after.kinds.is_empty());
        found.extend(after.kinds.into_iter().map(|(company, kind, version)| (company.0, kind.to_string(), version.to_string())));
        position = after.reached;
    }
}

#[test]
fn the_kinds_of_what_is_new_are_told_once_from_wherever_it_lies() {
    let bench = Bench::new();
    let mut published: Vec<(Position, (u32, String, String))> = Vec::new();
    let kinds = ["claim.created", "Claim.Created", "policy.bound@2", "policy.bound", "note.made"];
    for round in 0..60_usize {
        let events: Vec<(CompanyId, &str)> =
            (0..round % 4 + 1).map(|place| (CompanyId(1 + (round + place) as u32 % 2), kinds[(round * 3 + place) % 5])).collect();
        for (position, (company, kind)) in bench.publish(&events).into_iter().zip(&events) {
            let (kind, version) = kind.split_once('@').unwrap_or((kind, "1"));
            published.push((position, (company.0, kind.to_ascii_lowercase(), version.to_owned())));
        }
        match round {
            10 | 20 => bench.seal(),
            35 => bench.rotate(),
            _ => {}
        }
    }
    for (position, _) in std::iter::once(&(Position::START, Default::default())).chain(&published) {
        let expected: BTreeSet<_> = published.iter().filter(|(at, _)| at > position).map(|(_, kind)| kind.clone()).collect();
        assert_eq!(kinds_up(&bench, *position), expected, "{position:?}");
    }
    let bench = bench.reopen();
    let expected: BTreeSet<_> = published.iter().map(|(_, kind)| kind.clone()).collect();
    assert_eq!(kinds_up(&bench, Position::START), expected);
    assert_eq!(kinds_up(&bench, published.last().unwrap().0), BTreeSet::new());
}

#[test]
fn the_kinds_of_more_than_memory_holds_are_told_all_the_same() {
    let bench = Bench::new();
    let start = bench.publish_one("claim.created");
    for _ in 0..11 {
        bench.publish(&[(COMPANY, "policy.bound"); 400]);
    }
    let last = bench.publish(&[(OTHER, "note.made")])[0];
    let both = [(1, "policy.bound".to_owned(), "1".to_owned()), (2, "note.made".to_owned(), "1".to_owned())];
    assert_eq!(kinds_up(&bench, start), BTreeSet::from(both));
    assert_eq!(kinds_up(&bench, last), BTreeSet::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn counting_agrees_with_looking_at_every_event(
        rounds in prop::collection::vec((prop::collection::vec((1_u32..=2, 0_usize..4), 1..40), 0_u8..8), 1..12),
        questions in prop::collection::vec((0_usize..400, 0_usize..400, 0_usize..5), 20),
    ) {
        let kinds = ["claim.created", "Claim.Closed@2", "policy.bound", "lutine.note"];
        let filters = ["", "claim.*", "policy.bound,lutine.*", "claim.closed@2", "nothing"].map(filter);
        let bench = Bench::new();
        let mut all: Vec<(Position, CompanyId, &str)> = Vec::new();
        for (events, end) in &rounds {
            let events: Vec<(CompanyId, &str)> = events.iter().map(|(company, kind)| (CompanyId(*company), kinds[*kind])).collect();
            all.extend(bench.publish(&events).into_iter().zip(&events).map(|(at, (company, kind))| (at, *company, *kind)));
            match end {
                0 => bench.seal(),
                1 => bench.rotate(),
                _ => {}
            }
        }
        let position = |number: usize| all.get(number % (all.len() + 1)).map_or(Position::START, |(at, ..)| *at);
        for (after, until, of) in &questions {
            let (after, until, filter) = (position(*after), position(*until), &filters[*of]);
            let matching: Vec<Position> = all
                .iter()
                .filter(|(at, company, kind)| {
                    let (kind, version) = kind.split_once('@').unwrap_or((kind, "1"));
                    *company == COMPANY && *at > after && *at <= until && filter.matches(&kind.to_ascii_lowercase(), version)
                })
                .map(|(at, ..)| *at)
                .collect();
            let expected = Counted { count: matching.len() as u64, first: matching.first().copied(), last: matching.last().copied() };
            prop_assert_eq!(bench.store.count_matching(COMPANY, after, until, filter).unwrap(), expected);
        }
    }
}
