//! References as JSON: as publishers send them, as the log holds them, as receivers get them.

use serde::Deserialize;

use crate::domain::reference::{Link, Reference};
use crate::domain::text::escape_into;

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
    let stored: Vec<StoredReference> = serde_json::from_slice(text).ok()?;
    Some(stored.into_iter().filter_map(StoredReference::read).collect())
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
        assert_eq!(read_references(b"[{\"referenceType\":1}]"), None);
    }
}
