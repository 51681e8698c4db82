//! Subscriptions as they are asked for and shown.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::members::{Object, check_members, missing, object, refused, text, whole, word};
use super::overrides::{overrides_shape, parse_overrides};
use super::publish::Refusal;
use super::receiver_auth::{auth_shape, parse_auth};
use crate::domain::filter::TypeFilter;
use crate::domain::profile::{BodyForm, Overrides, Profile};
use crate::domain::subscription::{Auth, Ordering, OrderingKey, RATE_PER_MINUTE_MAX, Subscription, Wishes};

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
/// The longest name, in characters.
const NAME_LENGTH_MAX: usize = 200;
/// A new subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubscription {
    /// What its owner wants.
    pub wishes: Wishes,
    /// `tail`, `oldest` or a cursor; none: the tail.
    pub start_from: Option<String>,
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
            return Err(missing(&format!("/{name}"), name));
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
        ordering_key: None,
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
            "profile" => wishes.profile = word(value, &pointer, Profile::ALL, Profile::as_str)?,
            "overrides" => wishes.overrides = parse_overrides(value, &pointer, &wishes.overrides)?,
            "auth" => wishes.auth = parse_auth(value, &pointer, &wishes.auth)?,
            "headers" => wishes.headers = parse_headers(value, &pointer)?,
            "ordering" => wishes.ordering = word(value, &pointer, &Ordering::ALL, Ordering::as_str)?,
            "orderingKey" if value.is_null() => wishes.ordering_key = None,
            "orderingKey" => {
                let key = text(value, &pointer)?.parse::<OrderingKey>().map_err(|error| refused(&pointer, error.to_string()))?;
                wishes.ordering_key = Some(key);
            }
            "maxInFlight" => {
                let most = whole(value, &pointer, 1, u64::from(in_flight_max))?;
                wishes.max_in_flight = u16::try_from(most).unwrap_or(in_flight_max);
            }
            "ratePerMinute" => {
                let rate = whole(value, &pointer, 0, u64::from(RATE_PER_MINUTE_MAX))?;
                wishes.rate_per_minute = u32::try_from(rate).unwrap_or(0);
            }
            _ => {}
        }
    }
    check_whole(object, &mut wishes)?;
    Ok(wishes)
}

/// What must hold between members.
fn check_whole(object: &Object, wishes: &mut Wishes) -> Result<(), Refusal> {
    let is_named = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    if wishes.profile.demands_auth() && wishes.auth == Auth::None && is_named("profile") && !is_named("auth") {
        let detail =
            format!("the profile `{}` demands the member `auth`; {{\"kind\":\"none\"}} says that there is none", wishes.profile.as_str());
        return Err(Refusal { detail, ..missing("/auth", "auth") });
    }
    let knobs = wishes.profile.knobs(&wishes.overrides);
    if knobs.signature.is_in_body() && knobs.body != BodyForm::SignedEnvelope {
        let (signature, body) = (knobs.signature.as_str(), knobs.body.as_str());
        let at = if wishes.overrides.signature.is_some() { "/overrides/signature" } else { "/overrides/body" };
        return Err(refused(at, format!("the signature `{signature}` stands in the body `signed-envelope`, not in `{body}`")));
    }
    match wishes.ordering {
        Ordering::Key if wishes.ordering_key.is_none() => {
            let detail = "the ordering `key` demands the member `orderingKey`, a JSON pointer such as /claim/id".to_owned();
            Err(Refusal { detail, ..missing("/orderingKey", "orderingKey") })
        }
        Ordering::Key => Ok(()),
        other if is_named("orderingKey") => {
            Err(refused("/orderingKey", format!("goes with the ordering `key`, not with `{}`", other.as_str())))
        }
        _ => {
            wishes.ordering_key = None;
            Ok(())
        }
    }
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
        Self {
            id: subscription.id.0,
            name: wishes.name.clone(),
            url: wishes.url.clone(),
            types: wishes.types.clone(),
            profile: wishes.profile.as_str(),
            overrides: overrides_shape(&wishes.overrides),
            auth: auth_shape(&wishes.auth),
            headers: wishes.headers.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect(),
            ordering: wishes.ordering.as_str(),
            ordering_key: wishes.ordering_key.as_ref().map(|key| key.as_str().to_owned()),
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
            previous: None,
            consent: None,
            resumes: 0,
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
        assert_eq!(pointer(r#""ordering":"key""#), "/orderingKey");
        assert_eq!(pointer(r#""ordering":"key","orderingKey":"claim""#), "/orderingKey");
        assert_eq!(pointer(r#""orderingKey":"/claim/id""#), "/orderingKey");
        assert_eq!(pointer(r#""overrides":{"signature":"body-hmac-sha256"}"#), "/overrides/signature");
        assert_eq!(pointer(r#""overrides":{"clientKey":"k"}"#), "/overrides/clientCertificate");
        assert_eq!(pointer(r#""overrides":{"caBundle":"x"}"#), "/overrides/caBundle");
        assert_eq!(pointer(r#""overrides":{"cloudEventsSource":"a b"}"#), "/overrides/cloudEventsSource");
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

    #[test]
    fn a_profile_that_demands_auth_takes_even_none_when_it_is_written_out() {
        let profile = |more: &str| parse(&format!(r#"{{"url":"https://a.example/","types":["*"],"profile":"bridge"{more}}}"#));
        assert_eq!(profile("").unwrap_err().pointer.as_deref(), Some("/auth"));
        assert_eq!(profile(r#","auth":{"kind":"none"}"#).unwrap().wishes.auth, Auth::None);
    }

    #[test]
    fn the_ordering_key_goes_with_its_ordering() {
        let before = with(r#""ordering":"key","orderingKey":"/claim/id""#).unwrap().wishes;
        assert_eq!(shown(before.clone())["orderingKey"], "/claim/id");
        let after = parse_change(br#"{"ordering":"strict"}"#, &before, 16).unwrap();
        assert_eq!((after.ordering, after.ordering_key), (Ordering::Strict, None));
    }
}
