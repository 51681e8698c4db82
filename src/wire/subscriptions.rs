//! Subscriptions as they are asked for and shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::publish::Refusal;
use crate::domain::filter::TypeFilter;
use crate::domain::nearest::nearest;
use crate::domain::profile::{BodyForm, KeepResponse, Overrides, PayloadAs, Profile, SignatureForm, StatusSet};
use crate::domain::subscription::{Auth, Ordering, Subscription, Wishes};

/// What stands in place of a secret; sent back in a change, it keeps the secret that is there.
const MASK: &str = "***";

/// Members of a new subscription; a change knows all but the last.
const MEMBERS: [&str; 12] = [
    "name",
    "url",
    "types",
    "profile",
    "overrides",
    "auth",
    "headers",
    "ordering",
    "orderingKey",
    "maxInFlight",
    "ratePerMinute",
    "startFrom",
];
const OVERRIDES: [&str; 10] = [
    "body",
    "contentType",
    "signature",
    "signatureHeader",
    "successCodes",
    "lenientSuccess",
    "retryScheduleSeconds",
    "timeoutSeconds",
    "payloadAs",
    "keepResponse",
];

/// The longest name, in characters.
const NAME_LENGTH_MAX: usize = 200;
/// The most retries of a schedule.
const RETRIES_MAX: usize = 30;
/// The longest wait before one retry, in seconds.
const RETRY_SECONDS_MAX: f64 = 7.0 * 86_400.0;

/// A new subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// What its owner wants.
    pub wishes: Wishes,
    /// `tail`, `oldest` or a cursor; none: the tail.
    pub start_from: Option<String>,
}

type Object = Map<String, Value>;

fn refused(pointer: &str, detail: impl Into<String>) -> Refusal {
    Refusal { code: "invalid_member", pointer: Some(pointer.to_owned()), detail: detail.into(), offset: None }
}

fn object(body: &[u8]) -> Result<Object, Refusal> {
    let broken =
        |error: serde_json::Error| Refusal { code: "invalid_json", pointer: None, detail: format!("not JSON: {error}"), offset: None };
    match serde_json::from_slice(body).map_err(broken)? {
        Value::Object(object) => Ok(object),
        _ => Err(Refusal { code: "not_an_object", pointer: None, detail: "a subscription is a JSON object".to_owned(), offset: None }),
    }
}

fn check_members(object: &Object, allowed: &[&str], pointer: &str) -> Result<(), Refusal> {
    match object.keys().find(|name| !allowed.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let hint = nearest(name, allowed.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            Err(Refusal { code: "unknown_member", pointer: Some(at), detail: format!("there is no member `{name}`{hint}"), offset: None })
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Refusal> {
    value.as_str().ok_or_else(|| refused(pointer, "must be a text"))
}

/// One of a few words.
fn word<T: Copy>(value: &Value, pointer: &str, words: &[(&str, T)]) -> Result<T, Refusal> {
    let given = text(value, pointer)?;
    match words.iter().find(|(word, _)| *word == given) {
        Some((_, found)) => Ok(*found),
        None => {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let hint = nearest(given, names.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            Err(refused(pointer, format!("`{given}` is none of {}{hint}", names.join(", "))))
        }
    }
}

fn whole(value: &Value, pointer: &str, least: u64, most: u64) -> Result<u64, Refusal> {
    let number = value.as_u64().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| refused(pointer, format!("must be a whole number from {least} to {most}")))
}

fn flag(value: &Value, pointer: &str) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| refused(pointer, "must be true or false"))
}

/// Seconds, fractions allowed, as milliseconds.
fn seconds(value: &Value, pointer: &str, least: f64, most: f64) -> Result<u64, Refusal> {
    match value.as_f64() {
        Some(seconds) if (least..=most).contains(&seconds) => Ok((seconds * 1000.0).round() as u64),
        _ => Err(refused(pointer, format!("must be a number of seconds from {least} to {most}"))),
    }
}

/// Reads the body of a creation; `in_flight_default` is what a subscription gets that asks for nothing else.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_new(body: &[u8], in_flight_max: u16) -> Result<NewSubscription, Refusal> {
    let object = object(body)?;
    check_members(&object, &MEMBERS, "")?;
    for name in ["url", "types", "profile"] {
        if object.get(name).is_none_or(Value::is_null) {
            let detail = format!("the member `{name}` is missing");
            return Err(Refusal { code: "missing_member", pointer: Some(format!("/{name}")), detail, offset: None });
        }
    }
    let blank = Wishes {
        name: String::new(),
        url: String::new(),
        types: Vec::new(),
        filter: TypeFilter::default(),
        profile: Profile::Standard,
        overrides: Overrides::default(),
        auth: Auth::None,
        headers: Vec::new(),
        ordering: Ordering::Parallel,
        max_in_flight: in_flight_max,
        rate_per_minute: 0,
    };
    let mut wishes = apply(&object, blank, in_flight_max)?;
    if wishes.name.is_empty() {
        wishes.name = wishes.url.chars().take(NAME_LENGTH_MAX).collect();
    }
    let start_from = object.get("startFrom").filter(|value| !value.is_null());
    let start_from = start_from.map(|value| text(value, "/startFrom").map(str::to_owned)).transpose()?;
    Ok(NewSubscription { wishes, start_from })
}

/// Reads the body of a change.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub fn parse_change(body: &[u8], current: &Wishes, in_flight_max: u16) -> Result<Wishes, Refusal> {
    let object = object(body)?;
    let known = MEMBERS.split_last().map(|(_, known)| known).unwrap_or_default();
    check_members(&object, known, "")?;
    apply(&object, current.clone(), in_flight_max)
}

/// The wishes with what is named in `object` put in place.
fn apply(object: &Object, mut wishes: Wishes, in_flight_max: u16) -> Result<Wishes, Refusal> {
    for (name, value) in object {
        let pointer = format!("/{name}");
        match name.as_str() {
            "name" => wishes.name = parse_name(value, &pointer)?,
            "url" => wishes.url = text(value, &pointer)?.to_owned(),
            "types" => (wishes.types, wishes.filter) = parse_types(value, &pointer)?,
            "profile" => wishes.profile = word(value, &pointer, &Profile::ALL.map(|profile| (profile.as_str(), profile)))?,
            "overrides" => wishes.overrides = parse_overrides(value, &pointer)?,
            "auth" => wishes.auth = parse_auth(value, &pointer, &wishes.auth)?,
            "headers" => wishes.headers = parse_headers(value, &pointer)?,
            "ordering" => {
                let words = [Ordering::Parallel, Ordering::Strict].map(|ordering| (ordering.as_str(), ordering));
                wishes.ordering = word(value, &pointer, &words)?;
            }
            "orderingKey" if !value.is_null() => {
                return Err(refused(&pointer, "must be null: events are ordered as `parallel` or `strict`"));
            }
            "maxInFlight" => {
                let most = whole(value, &pointer, 1, u64::from(in_flight_max))?;
                wishes.max_in_flight = u16::try_from(most).unwrap_or(in_flight_max);
            }
            "ratePerMinute" => {
                let rate = whole(value, &pointer, 0, 6_000_000)?;
                wishes.rate_per_minute = u32::try_from(rate).unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn parse_name(value: &Value, pointer: &str) -> Result<String, Refusal> {
    let name = text(value, pointer)?;
    let is_right = (1..=NAME_LENGTH_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_right {
        return Ok(name.to_owned());
    }
    Err(refused(pointer, format!("a name is 1 to {NAME_LENGTH_MAX} characters without control characters")))
}

fn parse_types(value: &Value, pointer: &str) -> Result<(Vec<String>, TypeFilter), Refusal> {
    let entries = value.as_array().ok_or_else(|| refused(pointer, "must be a list of types such as [\"claim.*\"]"))?;
    let mut types = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        types.push(text(entry, &format!("{pointer}/{place}"))?.to_owned());
    }
    let filter = TypeFilter::parse_types(&types).map_err(|error| refused(pointer, error.to_string()))?;
    Ok((types, filter))
}

fn parse_headers(value: &Value, pointer: &str) -> Result<Vec<(String, String)>, Refusal> {
    let headers = value.as_object().ok_or_else(|| refused(pointer, "must be an object of header names and values"))?;
    headers.iter().map(|(name, value)| Ok((name.clone(), text(value, &format!("{pointer}/{name}"))?.to_owned()))).collect()
}

fn parse_auth(value: &Value, pointer: &str, current: &Auth) -> Result<Auth, Refusal> {
    let object = value.as_object().ok_or_else(|| refused(pointer, "must be an object with a member `kind`"))?;
    let at = |name: &str| format!("{pointer}/{name}");
    let member = |name: &str| match object.get(name) {
        Some(value) => text(value, &at(name)).map(str::to_owned),
        None => Err(Refusal { code: "missing_member", ..refused(&at(name), format!("the member `{name}` is missing")) }),
    };
    let kind = object.get("kind").unwrap_or(&Value::Null);
    match word(kind, &at("kind"), &[("none", 0), ("bearer", 1), ("basic", 2)])? {
        0 => {
            check_members(object, &["kind"], pointer)?;
            Ok(Auth::None)
        }
        1 => {
            check_members(object, &["kind", "token"], pointer)?;
            let kept = if let Auth::Bearer(kept) = current { Some(kept) } else { None };
            Ok(Auth::Bearer(secret(member("token")?, kept, &at("token"))?))
        }
        _ => {
            check_members(object, &["kind", "username", "password"], pointer)?;
            let kept = if let Auth::Basic(_, kept) = current { Some(kept) } else { None };
            Ok(Auth::Basic(member("username")?, secret(member("password")?, kept, &at("password"))?))
        }
    }
}

/// A secret as it is given; the mask stands for the one that is kept.
fn secret(given: String, kept: Option<&String>, pointer: &str) -> Result<String, Refusal> {
    match kept {
        _ if given != MASK => Ok(given),
        Some(kept) => Ok(kept.clone()),
        None => Err(refused(pointer, format!("`{MASK}` stands for the secret that is kept, and there is none of this kind"))),
    }
}

fn parse_overrides(value: &Value, pointer: &str) -> Result<Overrides, Refusal> {
    let object = value.as_object().ok_or_else(|| refused(pointer, "must be an object"))?;
    check_members(object, &OVERRIDES, pointer)?;
    let mut overrides = Overrides::default();
    for (name, value) in object {
        let pointer = format!("{pointer}/{name}");
        match name.as_str() {
            "body" => overrides.body = Some(word(value, &pointer, &[("typed", BodyForm::Typed), ("envelope", BodyForm::Envelope)])?),
            "contentType" => overrides.content_type = Some(parse_content_type(value, &pointer)?),
            "signature" => overrides.signature = Some(word(value, &pointer, &SIGNATURES)?),
            "signatureHeader" => overrides.signature_header = Some(text(value, &pointer)?.to_owned()),
            "successCodes" => overrides.success = Some(parse_statuses(value, &pointer)?),
            "lenientSuccess" => overrides.lenient_success = Some(flag(value, &pointer)?),
            "retryScheduleSeconds" => overrides.retry_schedule_ms = Some(parse_schedule(value, &pointer)?),
            "timeoutSeconds" => overrides.timeout_ms = Some(seconds(value, &pointer, 1.0, 60.0)?),
            "payloadAs" => {
                overrides.payload_as = Some(word(value, &pointer, &[("string", PayloadAs::String), ("object", PayloadAs::Object)])?);
            }
            "keepResponse" => {
                overrides.keep_response = Some(word(value, &pointer, &[("excerpt", KeepResponse::Excerpt), ("none", KeepResponse::None)])?);
            }
            _ => {}
        }
    }
    Ok(overrides)
}

const SIGNATURES: [(&str, SignatureForm); 3] =
    [("standard", SignatureForm::Standard), ("header-hmac", SignatureForm::HeaderHmac), ("none", SignatureForm::None)];

fn parse_content_type(value: &Value, pointer: &str) -> Result<String, Refusal> {
    let content_type = text(value, pointer)?;
    let is_right = content_type.contains('/') && content_type.len() <= 200 && content_type.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if is_right { Ok(content_type.to_owned()) } else { Err(refused(pointer, "must be a content type such as application/json")) }
}

fn parse_statuses(value: &Value, pointer: &str) -> Result<StatusSet, Refusal> {
    let wrong = || refused(pointer, "must be a list of statuses and ranges such as [200, \"202-204\"]");
    let entries = value.as_array().filter(|entries| (1..=50).contains(&entries.len())).ok_or_else(wrong)?;
    let texts = entries.iter().map(|entry| match entry {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(wrong()),
    });
    let texts = texts.collect::<Result<Vec<String>, Refusal>>()?;
    StatusSet::parse(texts.iter().map(String::as_str)).map_err(|error| refused(pointer, error.to_string()))
}

fn parse_schedule(value: &Value, pointer: &str) -> Result<Vec<u64>, Refusal> {
    let wrong = || refused(pointer, format!("must be a list of at most {RETRIES_MAX} numbers of seconds"));
    let entries = value.as_array().filter(|entries| entries.len() <= RETRIES_MAX).ok_or_else(wrong)?;
    entries.iter().enumerate().map(|(place, entry)| seconds(entry, &format!("{pointer}/{place}"), 0.0, RETRY_SECONDS_MAX)).collect()
}

/// A subscription as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionShape {
    id: u32,
    name: String,
    url: String,
    types: Vec<String>,
    profile: &'static str,
    overrides: Map<String, Value>,
    auth: BTreeMap<&'static str, String>,
    headers: Map<String, Value>,
    ordering: &'static str,
    ordering_key: Option<String>,
    max_in_flight: u16,
    rate_per_minute: u32,
    state: &'static str,
    created_utc: String,
    backlog: BacklogShape,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// What a subscription has not had yet.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BacklogShape {
    /// How many events.
    pub events: u64,
    /// How old the oldest of them is, in seconds.
    pub oldest_seconds: u64,
}

impl SubscriptionShape {
    /// The subscription without its secrets.
    #[must_use]
    pub fn of(subscription: &Subscription, backlog: BacklogShape) -> Self {
        let wishes = &subscription.wishes;
        let auth = match &wishes.auth {
            Auth::None => BTreeMap::from([("kind", "none".to_owned())]),
            Auth::Bearer(_) => BTreeMap::from([("kind", "bearer".to_owned()), ("token", MASK.to_owned())]),
            Auth::Basic(name, _) => {
                BTreeMap::from([("kind", "basic".to_owned()), ("username", name.clone()), ("password", MASK.to_owned())])
            }
        };
        Self {
            id: subscription.id.0,
            name: wishes.name.clone(),
            url: wishes.url.clone(),
            types: wishes.types.clone(),
            profile: wishes.profile.as_str(),
            overrides: overrides_shape(&wishes.overrides),
            auth,
            headers: wishes.headers.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect(),
            ordering: wishes.ordering.as_str(),
            ordering_key: None,
            max_in_flight: wishes.max_in_flight,
            rate_per_minute: wishes.rate_per_minute,
            state: subscription.state(),
            created_utc: subscription.created.to_string(),
            backlog,
            secret: None,
        }
    }

    /// The subscription with the secret that its webhooks are signed with, which is shown this once.
    #[must_use]
    pub fn fresh(subscription: &Subscription, secret: String) -> Self {
        Self { secret: Some(secret), ..Self::of(subscription, BacklogShape::default()) }
    }
}

fn seconds_shape(milliseconds: u64) -> Value {
    if milliseconds.is_multiple_of(1000) { Value::from(milliseconds / 1000) } else { Value::from(milliseconds as f64 / 1000.0) }
}

fn overrides_shape(overrides: &Overrides) -> Map<String, Value> {
    let mut shape = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shape.insert(name.to_owned(), value);
        }
    };
    let body = |form| match form {
        BodyForm::Typed => "typed",
        BodyForm::Envelope => "envelope",
    };
    let signature = |form| SIGNATURES.iter().find(|(_, known)| *known == form).map_or("none", |(word, _)| *word);
    let statuses = |set: &StatusSet| {
        let entries = set.to_entries().into_iter();
        entries.map(|entry| entry.parse::<u16>().map_or(Value::String(entry), Value::from)).collect::<Vec<Value>>()
    };
    put("body", overrides.body.map(|form| body(form).into()));
    put("contentType", overrides.content_type.clone().map(Value::from));
    put("signature", overrides.signature.map(|form| signature(form).into()));
    put("signatureHeader", overrides.signature_header.clone().map(Value::from));
    put("successCodes", overrides.success.as_ref().map(|set| statuses(set).into()));
    put("lenientSuccess", overrides.lenient_success.map(Value::from));
    put("retryScheduleSeconds", overrides.retry_schedule_ms.as_ref().map(|list| list.iter().copied().map(seconds_shape).collect()));
    put("timeoutSeconds", overrides.timeout_ms.map(seconds_shape));
    put("payloadAs", overrides.payload_as.map(|form| if form == PayloadAs::Object { "object" } else { "string" }.into()));
    put("keepResponse", overrides.keep_response.map(|keep| if keep == KeepResponse::None { "none" } else { "excerpt" }.into()));
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::company::CompanyId;
    use crate::domain::health::Health;
    use crate::domain::subscription::{Secret, Standing, SubscriptionId};
    use crate::domain::time::Timestamp;

    fn parse(body: &str) -> Result<NewSubscription, Refusal> {
        parse_new(body.as_bytes(), 16)
    }

    fn with(member: &str) -> Result<NewSubscription, Refusal> {
        parse(&format!(r#"{{"url":"https://a.example/","types":["claim.*"],"profile":"standard",{member}}}"#))
    }

    fn shown(wishes: Wishes) -> Value {
        let subscription = Subscription {
            id: SubscriptionId(12),
            company: CompanyId(7),
            wishes,
            secret: Secret([1; 32]),
            standing: Standing::Active,
            health: Health::default(),
            created: Timestamp::from_micros(1_795_343_400_123_456),
        };
        serde_json::to_value(SubscriptionShape::of(&subscription, BacklogShape { events: 3, oldest_seconds: 5 })).unwrap()
    }

    #[test]
    fn url_types_and_profile_are_enough() {
        let new = parse(r#"{"url":"https://a.example/","types":["claim.*"],"profile":"standard"}"#).unwrap();
        assert_eq!((new.wishes.max_in_flight, new.wishes.name.as_str(), new.start_from), (16, "https://a.example/", None));
        assert!(new.wishes.filter.matches("claim.created", "1"));
        for name in ["url", "types", "profile"] {
            let mut object: Object = serde_json::from_str(r#"{"url":"https://a.example/","types":[],"profile":"standard"}"#).unwrap();
            object.remove(name);
            let refusal = parse(&Value::Object(object).to_string()).unwrap_err();
            assert_eq!((refusal.code, refusal.pointer), ("missing_member", Some(format!("/{name}"))));
        }
    }

    #[test]
    fn what_is_asked_for_is_what_is_shown_but_for_the_secrets() {
        let new = with(concat!(
            r#""name":"broker portal","headers":{"X-Partner":"7"},"ordering":"strict","orderingKey":null,"maxInFlight":4,"#,
            r#""ratePerMinute":60,"auth":{"kind":"basic","username":"u","password":"p"},"#,
            r#""overrides":{"body":"envelope","contentType":"application/x+json","signature":"header-hmac","signatureHeader":"X-S","#,
            r#""successCodes":[204,"300-302"],"lenientSuccess":true,"retryScheduleSeconds":[5,0.5],"timeoutSeconds":10,"#,
            r#""payloadAs":"object","keepResponse":"none"}"#
        ))
        .unwrap();
        let shown = shown(new.wishes);
        assert_eq!(
            shown.to_string(),
            concat!(
                r#"{"auth":{"kind":"basic","password":"***","username":"u"},"backlog":{"events":3,"oldestSeconds":5},"#,
                r#""createdUtc":"2026-11-22T10:30:00.123456Z","headers":{"X-Partner":"7"},"id":12,"maxInFlight":4,"name":"broker portal","#,
                r#""ordering":"strict","orderingKey":null,"overrides":{"body":"envelope","contentType":"application/x+json","#,
                r#""keepResponse":"none","lenientSuccess":true,"payloadAs":"object","retryScheduleSeconds":[5,0.5],"#,
                r#""signature":"header-hmac","signatureHeader":"X-S","successCodes":[204,"300-302"],"timeoutSeconds":10},"#,
                r#""profile":"standard","ratePerMinute":60,"state":"active","types":["claim.*"],"url":"https://a.example/"}"#
            )
        );
    }

    #[test]
    fn mistakes_are_named_with_their_pointer() {
        let pointer = |member: &str| with(member).unwrap_err().pointer.unwrap();
        assert_eq!(pointer(r#""nmae":"x""#), "/nmae");
        assert!(with(r#""nmae":"x""#).unwrap_err().detail.ends_with("did you mean `name`?"));
        assert_eq!(pointer(r#""overrides":{"timeOutSeconds":1}"#), "/overrides/timeOutSeconds");
        assert!(with(r#""overrides":{"timeOutSeconds":1}"#).unwrap_err().detail.ends_with("did you mean `timeoutSeconds`?"));
        assert_eq!(pointer(r#""overrides":{"timeoutSeconds":0.5}"#), "/overrides/timeoutSeconds");
        assert_eq!(pointer(r#""overrides":{"timeoutSeconds":61}"#), "/overrides/timeoutSeconds");
        assert_eq!(pointer(r#""overrides":{"retryScheduleSeconds":[1,-1]}"#), "/overrides/retryScheduleSeconds/1");
        assert_eq!(pointer(r#""overrides":{"successCodes":["2xx"]}"#), "/overrides/successCodes");
        assert_eq!(pointer(r#""overrides":{"body":"cloudevents"}"#), "/overrides/body");
        assert_eq!(pointer(r#""ordering":"key""#), "/ordering");
        assert_eq!(pointer(r#""maxInFlight":17"#), "/maxInFlight");
        assert_eq!(pointer(r#""maxInFlight":0"#), "/maxInFlight");
        assert_eq!(pointer(r#""auth":{"kind":"bearer"}"#), "/auth/token");
        assert_eq!(pointer(r#""auth":{"kind":"oauth2"}"#), "/auth/kind");
        assert_eq!(pointer(r#""headers":{"A":1}"#), "/headers/A");
        assert_eq!(parse("[]").unwrap_err().code, "not_an_object");
        assert_eq!(parse("{").unwrap_err().code, "invalid_json");
        let refusal = parse(r#"{"url":"https://a.example/","types":["a b"],"profile":"standrad"}"#).unwrap_err();
        assert!(refusal.detail.contains("did you mean `standard`?") || refusal.pointer.as_deref() == Some("/types"), "{refusal:?}");
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_a_masked_secret() {
        let before = with(r#""name":"x","auth":{"kind":"bearer","token":"t"}"#).unwrap().wishes;
        let after = parse_change(br#"{"ratePerMinute":5,"auth":{"kind":"bearer","token":"***"}}"#, &before, 16).unwrap();
        assert_eq!(after, Wishes { rate_per_minute: 5, ..before.clone() });
        assert_eq!(parse_change(br#"{"startFrom":"oldest"}"#, &before, 16).unwrap_err().code, "unknown_member");
    }
}
