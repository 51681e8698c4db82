//! What is asked for again: replays, dead letters in bulk, the rotation of a secret.

use serde::Serialize;
use serde_json::Value;

use super::members::{Object, check_members, flag, object_of, refused, text, whole, word};
use super::publish::Refusal;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::time::Timestamp;

/// The most events that a replay may name.
const IDS_MAX: usize = 10_000;
/// Attempts a minute at most.
const RATE_MAX: u64 = 6_000_000;
/// The longest reason of a person, in characters.
const REASON_LENGTH_MAX: usize = 500;
/// The longest time for which the secret before is still signed with, in seconds.
const OVERLAP_MAX: u64 = 7 * 24 * 3600;
/// The same when nothing is said.
const OVERLAP_DEFAULT: u64 = 24 * 3600;

/// An end of a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// From this time on, or before it.
    Time(Timestamp),
    /// Behind the event that the cursor passed, or up to that one.
    Cursor(String),
}

/// In which state deliveries must be to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayedState {
    /// They arrived.
    Delivered,
    /// They are dead letters.
    Dead,
    /// Somebody gave them up.
    Cancelled,
}

impl ReplayedState {
    const ALL: [Self; 3] = [Self::Delivered, Self::Dead, Self::Cancelled];

    /// The state as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayBody {
    /// The first events; none: the oldest that are kept.
    pub from: Option<Bound>,
    /// The end; none: the newest at this moment.
    pub to: Option<Bound>,
    /// Only these types.
    pub filter: Option<TypeFilter>,
    /// Exactly these events.
    pub ids: Option<Vec<EventId>>,
    /// Only events whose delivery is in this state.
    pub state: Option<ReplayedState>,
    /// Attempts a minute at most; 0 = what the subscription allows.
    pub rate_per_minute: u32,
    /// Only count.
    pub dry_run: bool,
}

/// Which dead letters are retried or discarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLettersBody {
    /// Only events created from this time on.
    pub from: Option<Timestamp>,
    /// Only events created before this time.
    pub to: Option<Timestamp>,
    /// Only these types.
    pub filter: Option<TypeFilter>,
    /// Why.
    pub reason: Option<String>,
}

/// Reads the members of a body; an empty one has none.
fn members(body: &[u8], known: &[&str]) -> Result<Object, Refusal> {
    if body.is_empty() {
        return Ok(Object::new());
    }
    let mut object = object_of(body, "the body")?;
    check_members(&object, known, "")?;
    object.retain(|_, value| !value.is_null());
    Ok(object)
}

fn bound(value: &Value, pointer: &str) -> Result<Bound, Refusal> {
    let given = text(value, pointer)?;
    Ok(given.parse().map_or_else(|_| Bound::Cursor(given.to_owned()), Bound::Time))
}

fn time(value: &Value, pointer: &str) -> Result<Timestamp, Refusal> {
    text(value, pointer)?.parse().map_err(|_| refused(pointer, "must be an RFC 3339 date-time such as 2026-11-22T10:30:00Z"))
}

fn types(value: &Value, pointer: &str) -> Result<TypeFilter, Refusal> {
    let entries = value.as_array().ok_or_else(|| refused(pointer, "must be a list of types such as [\"claim.*\"]"))?;
    let mut types = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        types.push(text(entry, &format!("{pointer}/{place}"))?.to_owned());
    }
    TypeFilter::parse_types(&types).map_err(|error| refused(pointer, error.to_string()))
}

fn ids(value: &Value, pointer: &str) -> Result<Vec<EventId>, Refusal> {
    let entries = value.as_array().filter(|entries| (1..=IDS_MAX).contains(&entries.len()));
    let entries = entries.ok_or_else(|| refused(pointer, format!("must be a list of 1 to {IDS_MAX} ids of events")))?;
    let number = |(place, entry): (usize, &Value)| whole(entry, &format!("{pointer}/{place}"), 1, (1 << 53) - 1).map(EventId);
    entries.iter().enumerate().map(number).collect()
}

fn reason(value: &Value, pointer: &str) -> Result<String, Refusal> {
    let reason = text(value, pointer)?;
    let is_right = (1..=REASON_LENGTH_MAX).contains(&reason.chars().count()) && !reason.chars().any(char::is_control);
    if is_right {
        return Ok(reason.to_owned());
    }
    Err(refused(pointer, format!("a reason is 1 to {REASON_LENGTH_MAX} characters without control characters")))
}

/// Reads what is to be replayed.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_replay(body: &[u8]) -> Result<ReplayBody, Refusal> {
    let object = members(body, &["from", "to", "types", "ids", "state", "ratePerMinute", "dryRun"])?;
    let mut replay = ReplayBody::default();
    for (name, value) in &object {
        let pointer = format!("/{name}");
        match name.as_str() {
            "from" => replay.from = Some(bound(value, &pointer)?),
            "to" => replay.to = Some(bound(value, &pointer)?),
            "types" => replay.filter = Some(types(value, &pointer)?),
            "ids" => replay.ids = Some(ids(value, &pointer)?),
            "state" => replay.state = Some(word(value, &pointer, &ReplayedState::ALL, ReplayedState::as_str)?),
            "ratePerMinute" => replay.rate_per_minute = u32::try_from(whole(value, &pointer, 0, RATE_MAX)?).unwrap_or(0),
            "dryRun" => replay.dry_run = flag(value, &pointer)?,
            _ => {}
        }
    }
    let ReplayBody { from, to, filter, ids, state, .. } = &replay;
    let is_stretch = from.is_some() || to.is_some() || filter.is_some() || state.is_some();
    match (ids.is_some(), is_stretch) {
        (false, false) => {
            let detail = "say what is to be sent again: one of `from`, `to`, `types` and `state`, or `ids`".to_owned();
            Err(Refusal { code: "missing_member", pointer: None, detail, offset: None })
        }
        (true, true) => Err(refused("/ids", "goes without `from`, `to`, `types` and `state`: it names every event")),
        _ => Ok(replay),
    }
}

/// Reads which dead letters are meant; `needs_reason` when a person must say why.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_dead_letters(body: &[u8], needs_reason: bool) -> Result<DeadLettersBody, Refusal> {
    let object = members(body, &["from", "to", "types", "reason"])?;
    let mut wanted = DeadLettersBody::default();
    for (name, value) in &object {
        let pointer = format!("/{name}");
        match name.as_str() {
            "from" => wanted.from = Some(time(value, &pointer)?),
            "to" => wanted.to = Some(time(value, &pointer)?),
            "types" => wanted.filter = Some(types(value, &pointer)?),
            "reason" => wanted.reason = Some(reason(value, &pointer)?),
            _ => {}
        }
    }
    if needs_reason && wanted.reason.is_none() {
        return Err(super::members::missing("/reason", "reason"));
    }
    Ok(wanted)
}

/// Reads the reason for which one delivery is retried, if there is one.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_reason(body: &[u8]) -> Result<Option<String>, Refusal> {
    let object = members(body, &["reason"])?;
    object.get("reason").map(|value| reason(value, "/reason")).transpose()
}

/// Reads for how long the secret before is still signed with, in seconds; 0 = no longer.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_rotation(body: &[u8]) -> Result<u64, Refusal> {
    let object = members(body, &["overlapSeconds"])?;
    object.get("overlapSeconds").map_or(Ok(OVERLAP_DEFAULT), |value| whole(value, "/overlapSeconds", 0, OVERLAP_MAX))
}

/// A replay as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayShape {
    /// Its number.
    pub replay_id: u32,
    /// To whom.
    pub subscription_id: u32,
    /// `running`, `done` or `cancelled`.
    pub state: &'static str,
    /// Events that it began with.
    pub count: u64,
    /// Deliveries that have ended.
    pub done: u64,
    /// Events that expired before they were sent; known once it is done.
    pub expired: u64,
    /// See [`ReplayBody::rate_per_minute`].
    pub rate_per_minute: u32,
    /// When it was asked for.
    pub created_utc: String,
    /// When it ended.
    pub ended_utc: Option<String>,
    /// Everything up to here has ended or is owed: as `from`, another replay goes on there.
    pub cursor: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_says_what_it_sends() {
        let body = br#"{"from":"2026-11-22T10:30:00Z","to":"abc","types":["claim.*"],"state":"dead","ratePerMinute":60,"dryRun":true}"#;
        let expected = ReplayBody {
            from: Some(Bound::Time("2026-11-22T10:30:00Z".parse().unwrap())),
            to: Some(Bound::Cursor("abc".to_owned())),
            filter: Some(TypeFilter::parse_list("claim.*").unwrap()),
            ids: None,
            state: Some(ReplayedState::Dead),
            rate_per_minute: 60,
            dry_run: true,
        };
        assert_eq!(parse_replay(body).unwrap(), expected);
        let ids = parse_replay(br#"{"ids":[7,3],"from":null}"#).unwrap();
        assert_eq!(ids, ReplayBody { ids: Some(vec![EventId(7), EventId(3)]), ..ReplayBody::default() });
    }

    #[test]
    fn mistakes_are_named_with_their_pointer() {
        let pointer = |body: &str| parse_replay(body.as_bytes()).unwrap_err().pointer;
        assert_eq!(pointer("{}"), None);
        assert_eq!(pointer(""), None);
        for (body, expected) in [
            (r#"{"form":"x"}"#, "/form"),
            (r#"{"ids":[]}"#, "/ids"),
            (r#"{"ids":[1,0]}"#, "/ids/1"),
            (r#"{"ids":[1],"types":["a"]}"#, "/ids"),
            (r#"{"state":"pending"}"#, "/state"),
            (r#"{"types":"a"}"#, "/types"),
            (r#"{"types":["a",1]}"#, "/types/1"),
            (r#"{"types":["a"],"dryRun":1}"#, "/dryRun"),
            (r#"{"types":["a"],"ratePerMinute":-1}"#, "/ratePerMinute"),
            (r#"{"from":1}"#, "/from"),
        ] {
            assert_eq!(pointer(body).as_deref(), Some(expected), "{body}");
        }
        assert_eq!(parse_dead_letters(b"{}", true).unwrap_err().pointer.as_deref(), Some("/reason"));
        assert_eq!(parse_dead_letters(br#"{"from":"today"}"#, false).unwrap_err().pointer.as_deref(), Some("/from"));
        assert_eq!(parse_reason(br#"{"reason":"a\nb"}"#).unwrap_err().pointer.as_deref(), Some("/reason"));
        assert_eq!(parse_rotation(br#"{"overlapSeconds":604801}"#).unwrap_err().pointer.as_deref(), Some("/overlapSeconds"));
    }

    #[test]
    fn a_rotation_overlaps_for_a_day_unless_something_else_is_said() {
        assert_eq!((parse_rotation(b"").unwrap(), parse_rotation(br#"{"overlapSeconds":0}"#).unwrap()), (86_400, 0));
    }
}
