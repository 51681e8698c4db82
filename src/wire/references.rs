//! References as JSON: as publishers send them, as the log holds them, as receivers get them.

use std::borrow::Cow;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{Inside, Kind, Value};
use super::publish::{Refusal, no_such_member, pointer_to};
use crate::domain::event::EventLimits;
use crate::domain::reference::{
    ContentType, LINKS_MAX, Link, NewReferences, NewSnapshot, REFERENCES_MAX, Reference, ReferencesError, check_addresses,
};
use crate::domain::text::escape_into;

/// A value of the request and the JSON pointer to it.
struct Place<'a> {
    value: Value<'a>,
    pointer: String,
}

impl<'a> Place<'a> {
    fn refuse(&self, detail: impl Into<String>) -> Refusal {
        Refusal { offset: Some(self.value.offset), ..Refusal::of("invalid_references", &self.pointer, detail) }
    }

    fn elements(&self, detail: &str) -> Result<Inside<'a>, Refusal> {
        Inside::array(&self.value, 0).ok_or_else(|| self.refuse(detail))
    }

    fn element(&self, number: usize, value: Value<'a>) -> Self {
        Self { value, pointer: format!("{}/{number}", self.pointer) }
    }

    /// The members in the order of their names; null counts as absent.
    fn members<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Place<'a>>; N], Refusal> {
        let mut members = [const { None }; N];
        let mut seen = [false; N];
        let mut inside = Inside::object(&self.value, 0).ok_or_else(|| self.refuse("this must be an object"))?;
        while let Some((name, value)) = inside.member() {
            let text = name.text().unwrap_or_default();
            let member = Place { value, pointer: format!("{}{}", self.pointer, pointer_to(&text)) };
            let place = names.iter().position(|name| *name == text);
            let Some((slot, seen)) = place.and_then(|place| members.get_mut(place).zip(seen.get_mut(place))) else {
                return Err(member.refuse(no_such_member(&text, &names)));
            };
            if std::mem::replace(seen, true) {
                return Err(member.refuse(format!("the member `{text}` is there twice")));
            }
            *slot = (value.kind != Kind::Null).then_some(member);
        }
        Ok(members)
    }

    /// A member that must be there.
    fn required(&self, member: Option<Place<'a>>, name: &str) -> Result<Place<'a>, Refusal> {
        member.ok_or_else(|| Refusal { pointer: Some(format!("{}/{name}", self.pointer)), ..self.refuse(format!("`{name}` is missing")) })
    }

    fn text(&self) -> Result<Cow<'a, str>, Refusal> {
        self.value.text().ok_or_else(|| self.refuse("this must be a string"))
    }

    fn parse<T: FromStr>(&self) -> Result<T, Refusal>
    where
        T::Err: std::fmt::Display,
    {
        self.text()?.parse().map_err(|error: T::Err| self.refuse(error.to_string()))
    }

    fn boolean(&self) -> Result<bool, Refusal> {
        match self.value.source {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.refuse("this must be true or false")),
        }
    }
}

/// A snapshot of a reference, and where its text lies in that of all references.
struct Found {
    snapshot: NewSnapshot,
    start: usize,
    length: usize,
}

/// Checks a list of references that has been scanned; `base` bytes of the body come before what the value's offset counts
/// from. With how many bytes of the text are snapshots.
pub(super) fn parse_references(value: &Value<'_>, base: usize, limits: &EventLimits) -> Result<(NewReferences, usize), Refusal> {
    let list = Place { value: Value { offset: base + value.offset, ..*value }, pointer: "/references".to_owned() };
    let mut elements = list.elements("`references` must be an array of objects")?;
    let mut references = Vec::new();
    let mut found: Vec<Found> = Vec::new();
    while let Some(element) = elements.element() {
        if references.len() == REFERENCES_MAX {
            return Err(list.refuse(format!("an event has at most {REFERENCES_MAX} references")));
        }
        let (reference, snapshot) = parse_reference(&list.element(references.len(), element), references.len(), limits)?;
        found.extend(snapshot.map(|(snapshot, source)| Found {
            snapshot,
            start: source.offset.saturating_sub(list.value.offset),
            length: source.source.len(),
        }));
        references.push(reference);
    }
    check_addresses(&references).map_err(|error| {
        let pointer = match error {
            ReferencesError::Repeated { second, .. } => format!("/references/{second}"),
            ReferencesError::TwoAnswers { reference, link } => format!("/references/{reference}/links/{link}/redirect"),
        };
        Refusal { pointer: Some(pointer), ..list.refuse(error.to_string()) }
    })?;
    let text = without_bodies(value.source, &found);
    if text.len() > limits.metadata_bytes_max {
        return Err(list.refuse(format!(
            "the references have {} bytes beside snapshots, {} are allowed",
            text.len(),
            limits.metadata_bytes_max
        )));
    }
    let bytes = found.iter().map(|found| found.length).sum();
    Ok((NewReferences { text, snapshots: found.into_iter().map(|found| found.snapshot).collect() }, bytes))
}

/// The source with each snapshot replaced by what it is and how long.
fn without_bodies(source: &str, found: &[Found]) -> String {
    let mut text = String::new();
    let mut copied = 0;
    for Found { snapshot, start, length } in found {
        text.push_str(source.get(copied..*start).unwrap_or_default());
        let mut content_type = Vec::new();
        escape_into(&mut content_type, snapshot.content_type.as_str());
        let content_type = String::from_utf8_lossy(&content_type);
        text.push_str(&format!(r#"{{"contentType":"{content_type}","bytes":{}}}"#, snapshot.body.len()));
        copied = start + length;
    }
    text.push_str(source.get(copied..).unwrap_or_default());
    text
}

fn parse_reference<'a>(
    place: &Place<'a>,
    number: usize,
    limits: &EventLimits,
) -> Result<(Reference, Option<(NewSnapshot, Value<'a>)>), Refusal> {
    let [kind, id, links, snapshot] = place.members(["referenceType", "referenceId", "links", "snapshot"])?;
    let kind = place.required(kind, "referenceType")?.parse()?;
    let id = place.required(id, "referenceId")?.parse()?;
    let links = links.map(|links| parse_links(&links)).transpose()?.unwrap_or_default();
    let reference = u32::try_from(number).unwrap_or(u32::MAX);
    let snapshot = snapshot.map(|place| Ok((parse_snapshot(&place, reference, limits)?, place.value))).transpose()?;
    let content_type = snapshot.as_ref().map(|(snapshot, _)| snapshot.content_type.clone());
    Ok((Reference { kind, id, links, snapshot: content_type }, snapshot))
}

fn parse_links(place: &Place<'_>) -> Result<Vec<Link>, Refusal> {
    let mut elements = place.elements("`links` must be an array of objects")?;
    let mut links = Vec::new();
    while let Some(element) = elements.element() {
        if links.len() == LINKS_MAX {
            return Err(place.refuse(format!("a reference has at most {LINKS_MAX} links")));
        }
        let link = place.element(links.len(), element);
        let [content_type, href, redirect] = link.members(["contentType", "href", "redirect"])?;
        links.push(Link {
            content_type: link.required(content_type, "contentType")?.parse()?,
            href: link.required(href, "href")?.parse()?,
            redirect: redirect.map(|redirect| redirect.boolean()).transpose()?.unwrap_or(false),
        });
    }
    Ok(links)
}

/// How the string of a snapshot's body stands for its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Base64,
}

fn parse_snapshot(place: &Place<'_>, reference: u32, limits: &EventLimits) -> Result<NewSnapshot, Refusal> {
    let [content_type, body, encoding] = place.members(["contentType", "body", "encoding"])?;
    let content_type: ContentType = place.required(content_type, "contentType")?.parse()?;
    let encoding = match &encoding {
        None => Encoding::Utf8,
        Some(encoding) => match encoding.text()?.as_ref() {
            "utf-8" => Encoding::Utf8,
            "base64" => Encoding::Base64,
            _ => return Err(encoding.refuse("`encoding` is utf-8 (the default) or base64")),
        },
    };
    let body = place.required(body, "body")?;
    let bytes_max = limits.snapshot_bytes_max;
    let too_large = |bytes: usize| Refusal {
        code: "snapshot_too_large",
        ..body.refuse(format!("the snapshot has {bytes} bytes, {bytes_max} are allowed"))
    };
    let bytes = match (body.value.text(), encoding) {
        (Some(text), Encoding::Utf8) => Bytes::from(text.into_owned()),
        (Some(text), Encoding::Base64) => {
            // Four letters stand for three bytes; what is far too long is not decoded first.
            if text.len() / 4 * 3 > bytes_max.saturating_add(2) {
                return Err(too_large(text.len() / 4 * 3));
            }
            let decoded = STANDARD.decode(text.as_bytes());
            Bytes::from(decoded.map_err(|error| body.refuse(format!("`body` is not base64 (RFC 4648, 4): {error}")))?)
        }
        (None, Encoding::Utf8) => Bytes::copy_from_slice(body.value.source.as_bytes()),
        (None, Encoding::Base64) => return Err(body.refuse("with `encoding` base64 the `body` must be a string")),
    };
    if bytes.len() > bytes_max {
        return Err(too_large(bytes.len()));
    }
    Ok(NewSnapshot { reference, content_type, body: bytes })
}

/// A reference as the log holds it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredReference {
    reference_type: String,
    reference_id: String,
    links: Option<Vec<StoredLink>>,
    snapshot: Option<StoredSnapshot>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredLink {
    content_type: String,
    href: String,
    redirect: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSnapshot {
    content_type: String,
}

impl StoredLink {
    fn read(self) -> Option<Link> {
        let Self { content_type, href, redirect } = self;
        Some(Link { content_type: content_type.parse().ok()?, href: href.parse().ok()?, redirect: redirect.unwrap_or(false) })
    }
}

impl StoredReference {
    /// None, and links left out, where a store of an earlier version holds what is refused today.
    fn read(self) -> Option<Reference> {
        Some(Reference {
            kind: self.reference_type.parse().ok()?,
            id: self.reference_id.parse().ok()?,
            links: self.links.into_iter().flatten().filter_map(StoredLink::read).collect(),
            snapshot: match self.snapshot {
                Some(snapshot) => Some(snapshot.content_type.parse().ok()?),
                None => None,
            },
        })
    }
}

/// The references of an event, from the text in the log; none when that is not such a text. An empty text has none.
#[must_use]
pub fn read_references(text: &[u8]) -> Option<Vec<Reference>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let stored: Vec<&RawValue> = serde_json::from_slice(text).ok()?;
    Some(stored.into_iter().filter_map(|one| serde_json::from_str::<StoredReference>(one.get()).ok()?.read()).collect())
}

/// The JSON text of `affected`: an array of `{"referenceType","referenceId","links":[{"contentType","href"}]}`. Our own
/// addresses begin with `notification`, see [`crate::domain::reference::notification_address`].
#[must_use]
pub fn affected(references: &[Reference], notification: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + references.len() * 256);
    let text = |out: &mut Vec<u8>, before: &str, text: &str| {
        out.extend_from_slice(before.as_bytes());
        escape_into(out, text);
    };
    out.push(b'[');
    for (place, reference) in references.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text(&mut out, "{\"referenceType\":\"", reference.kind.as_str());
        text(&mut out, "\",\"referenceId\":\"", reference.id.as_str());
        out.extend_from_slice(b"\",\"links\":[");
        for (place, link) in reference.outward_links(notification).iter().enumerate() {
            text(&mut out, if place > 0 { ",{\"contentType\":\"" } else { "{\"contentType\":\"" }, link.content_type.as_str());
            text(&mut out, "\",\"href\":\"", &link.href);
            out.extend_from_slice(b"\"}");
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::publish::{BatchForm, parse_batch, parse_event};

    fn text(stored: &str) -> String {
        let references = read_references(stored.as_bytes()).unwrap();
        String::from_utf8(affected(&references, "https://e.example/n")).unwrap()
    }

    #[test]
    fn receivers_get_the_links_as_they_are_and_ours_where_we_answer() {
        let stored = r#"[ {"referenceId":"a\"b","referenceType":"claim", "links":[
            {"contentType":"text/html","href":"https://a.example/?x=\"","redirect":false},
            {"redirect":true,"contentType":"text/html","href":"https://a.example/2"}]},
          {"referenceType":"file","referenceId":"7","links":null,"snapshot":{"contentType":"image/png","bytes":3}},
          {"referenceType":"offer","referenceId":"8"} ]"#;
        let expected = [
            r#"[{"referenceType":"claim","referenceId":"a\"b","links":["#,
            r#"{"contentType":"text/html","href":"https://a.example/?x=\""},"#,
            r#"{"contentType":"text/html","href":"https://e.example/n/references/a%22b"}]},"#,
            r#"{"referenceType":"file","referenceId":"7","links":[{"contentType":"image/png","href":"https://e.example/n/files/7"}]},"#,
            r#"{"referenceType":"offer","referenceId":"8","links":[]}]"#,
        ];
        assert_eq!(text(stored), expected.concat());
        assert_eq!(text(""), "[]");
    }

    #[test]
    fn what_was_taken_once_and_is_refused_today_is_left_out() {
        let stored = r#"[{"referenceType":"a b","referenceId":"1"},{"referenceType":"file","referenceId":"1","links":[
            {"contentType":"x","href":"https://a.example/"},{"contentType":"a/b","href":"/1"},{"contentType":"a/b","href":"https://a.example/"}]}]"#;
        assert_eq!(
            text(stored),
            r#"[{"referenceType":"file","referenceId":"1","links":[{"contentType":"a/b","href":"https://a.example/"}]}]"#
        );
        assert_eq!(read_references(b"{}"), None);
        assert_eq!(read_references(b"[{\"referenceType\":1},\"x\"]"), Some(Vec::new()));
    }

    fn parse(references: &str) -> Result<NewReferences, Refusal> {
        let body = format!(r#"{{"type":"a","references":{references}}}"#);
        let limits = EventLimits { snapshot_bytes_max: 12, metadata_bytes_max: 250, ..EventLimits::default() };
        parse_event(body.as_bytes(), &limits).map(|event| event.references.unwrap())
    }

    fn pointer(references: &str) -> String {
        let refusal = parse(references).unwrap_err();
        assert_eq!(refusal.code, "invalid_references", "{}", refusal.detail);
        assert!(refusal.offset.is_some());
        refusal.pointer.unwrap()
    }

    #[test]
    fn every_part_of_a_reference_is_looked_at() {
        assert_eq!(pointer("{}"), "/references");
        assert_eq!(pointer("[7]"), "/references/0");
        assert_eq!(pointer(r#"[{"referenceType":"c"}]"#), "/references/0/referenceId");
        assert_eq!(pointer(r#"[{"referenceType":"c d","referenceId":"1"}]"#), "/references/0/referenceType");
        assert_eq!(pointer(r#"[{"referenceType":"c","referenceId":1}]"#), "/references/0/referenceId");
        assert_eq!(pointer(r#"[{"referenceType":"c","referenceId":"1","lnks":[]}]"#), "/references/0/lnks");
        assert!(parse(r#"[{"lnks":[]}]"#).unwrap_err().detail.ends_with("did you mean `links`?"));
        assert_eq!(pointer(r#"[{"referenceType":"c","referenceType":"c"}]"#), "/references/0/referenceType");
        let same = r#"[{"referenceType":"c","referenceId":"1"},{"referenceType":"c","referenceId":"1"}]"#;
        assert_eq!(pointer(same), "/references/1");
        let links = |links: &str| pointer(&format!(r#"[{{"referenceType":"c","referenceId":"1","links":{links}}}]"#));
        assert_eq!(links("1"), "/references/0/links");
        let good = r#"{"contentType":"a/b","href":"https://a.example/"}"#;
        assert_eq!(links(&format!(r#"[{good},{{"contentType":"a/b"}}]"#)), "/references/0/links/1/href");
        assert_eq!(links(r#"[{"contentType":"a/b","href":"/x"}]"#), "/references/0/links/0/href");
        assert_eq!(links(r#"[{"contentType":"ab","href":"https://a.example/"}]"#), "/references/0/links/0/contentType");
        assert_eq!(links(r#"[{"contentType":"a/b","href":"https://a.example/","redirect":1}]"#), "/references/0/links/0/redirect");
        assert_eq!(links(&format!("[{}]", [good; 21].join(","))), "/references/0/links");
        let redirect = r#"{"contentType":"a/b","href":"https://a.example/","redirect":true}"#;
        assert_eq!(links(&format!("[{redirect},{redirect}]")), "/references/0/links/1/redirect");
    }

    #[test]
    fn every_part_of_a_snapshot_is_looked_at() {
        let snapshot = |snapshot: &str| format!(r#"[{{"referenceType":"c","referenceId":"1","snapshot":{snapshot}}}]"#);
        let wrong = |text: &str| pointer(&snapshot(text)).strip_prefix("/references/0/snapshot").unwrap().to_owned();
        assert_eq!(wrong("[]"), "");
        assert_eq!(wrong(r#"{"body":1}"#), "/contentType");
        assert_eq!(wrong(r#"{"contentType":"a/b"}"#), "/body");
        assert_eq!(wrong(r#"{"contentType":"a/b","body":null}"#), "/body");
        assert_eq!(wrong(r#"{"contentType":"a/b","body":1,"encoding":"latin1"}"#), "/encoding");
        assert_eq!(wrong(r#"{"contentType":"a/b","body":{},"encoding":"base64"}"#), "/body");
        assert_eq!(wrong(r#"{"contentType":"a/b","body":"AA=","encoding":"base64"}"#), "/body");
        assert_eq!(wrong(r#"{"contentType":"a/b","body":"A A=","encoding":"base64"}"#), "/body");
        let body = |text: &str| parse(&snapshot(text)).map(|references| references.snapshots[0].body.to_vec());
        let refused = |text: &str| parse(&snapshot(text)).unwrap_err().code;
        assert_eq!(body(r#"{"contentType":"a/b","body":{ "n": 1.0 }}"#).unwrap(), br#"{ "n": 1.0 }"#);
        assert_eq!(body(r#"{"contentType":"a/b","body":"\u00e5\n","encoding":"utf-8"}"#).unwrap(), "å\n".as_bytes());
        assert_eq!(body(r#"{"contentType":"a/b","body":"AP8=","encoding":"base64"}"#).unwrap(), [0, 255]);
        assert_eq!(body(r#"{"contentType":"a/b","body":""}"#).unwrap(), b"");
        // The limit here is 12 bytes.
        assert_eq!(body(r#"{"contentType":"a/b","body":"123456789012"}"#).unwrap().len(), 12);
        assert_eq!(refused(r#"{"contentType":"a/b","body":"1234567890123"}"#), "snapshot_too_large");
        assert_eq!(body(r#"{"contentType":"a/b","body":"MTIzNDU2Nzg5MDEy","encoding":"base64"}"#).unwrap().len(), 12);
        assert_eq!(refused(r#"{"contentType":"a/b","body":"MTIzNDU2Nzg5MDEyMw==","encoding":"base64"}"#), "snapshot_too_large");
        assert_eq!(refused(r#"{"contentType":"a/b","body":1234567890123}"#), "snapshot_too_large");
        let redirect = r#"[{"referenceType":"c","referenceId":"1","links":[{"contentType":"a/b","href":"https://a.example/","redirect":true}],
            "snapshot":{"contentType":"a/b","body":1}}]"#;
        assert_eq!(pointer(redirect), "/references/0/links/0/redirect");
    }

    #[test]
    fn the_text_for_the_log_has_no_bodies_and_else_stays_as_it_is() {
        let references = parse(
            r#"[ {"referenceType":"c", "snapshot" : {"body":"AP8=","encoding":"base64","contentType":"a/b"},"referenceId":"1"},
{"referenceType":"c","referenceId":"2"}, {"snapshot":{"contentType":"a/b; x=\"1\"","body":[ ]},"referenceType":"c","referenceId":"3"} ]"#,
        )
        .unwrap();
        assert_eq!(
            references.text,
            r#"[ {"referenceType":"c", "snapshot" : {"contentType":"a/b","bytes":2},"referenceId":"1"},
{"referenceType":"c","referenceId":"2"}, {"snapshot":{"contentType":"a/b; x=\"1\"","bytes":3},"referenceType":"c","referenceId":"3"} ]"#
        );
        let numbers: Vec<_> = references.snapshots.iter().map(|snapshot| (snapshot.reference, snapshot.body.as_ref())).collect();
        assert_eq!(numbers, [(0, [0, 255].as_slice()), (2, b"[ ]")]);
        let kinds: Vec<_> = read_references(references.text.as_bytes()).unwrap().into_iter().map(|one| one.snapshot).collect();
        assert_eq!(kinds, [Some("a/b".parse().unwrap()), None, Some("a/b; x=\"1\"".parse().unwrap())]);
        let plain = r#"[{"referenceType":"c","referenceId":"1","links":null , "snapshot":null}]"#;
        assert_eq!(parse(plain).unwrap(), NewReferences::plain(plain));
        // Above 250 bytes of text in the log, whatever the snapshots.
        let long = format!(r#"[{{"referenceType":"c","referenceId":"1"}}{}]"#, " ".repeat(250));
        assert_eq!(pointer(&long), "/references");
    }

    #[test]
    fn a_snapshot_may_be_nested_as_deep_as_a_payload() {
        let nested = |depth: usize| {
            let body = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            let limits = EventLimits::default();
            let text = format!(
                r#"{{"references":[{{"referenceType":"c","referenceId":"1","snapshot":{{"contentType":"a/b","body":{body}}}}}],"type":"a"}}"#
            );
            let batch = parse_batch(format!("[{text}]").as_bytes(), BatchForm::JsonArray, &limits, 1).unwrap().remove(0);
            assert_eq!(
                batch.as_ref().err().map(|refusal| refusal.code),
                parse_event(text.as_bytes(), &limits).err().map(|refusal| refusal.code)
            );
            batch.map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!(nested(64), Ok(()));
        assert_eq!(nested(65), Err("too_deep"));
    }
}
