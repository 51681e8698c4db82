//! References: the things that an event speaks of, links to them, and snapshots of them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// The most references of one event.
pub const REFERENCES_MAX: usize = 100;
/// The most links of one reference.
pub const LINKS_MAX: usize = 20;

/// The types that have a plural of their own in paths, and what all others share.
const PLURALS: [(&str, &str); 9] = [
    ("inquiry", "inquiries"),
    ("consultation", "consultations"),
    ("customer", "customers"),
    ("booking", "bookings"),
    ("contract", "contracts"),
    ("file", "files"),
    ("offer", "offers"),
    ("questionnaire", "questionnaires"),
    ("tender", "tenders"),
];
const OTHER_PLURAL: &str = "references";

/// The type of a referenced thing: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`, such as `contract`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReferenceType(String);

/// A text that is not a reference type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`referenceType` is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit")]
pub struct ParseReferenceTypeError;

impl ReferenceType {
    /// The type as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How things of this type are called in paths: a plural of their own, or `references`. Compared without case.
    #[must_use]
    pub fn plural(&self) -> &'static str {
        PLURALS.iter().find(|(singular, _)| singular.eq_ignore_ascii_case(&self.0)).map_or(OTHER_PLURAL, |(_, plural)| plural)
    }
}

impl FromStr for ReferenceType {
    type Err = ParseReferenceTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(ParseReferenceTypeError) }
    }
}

/// The publisher's name of a referenced thing: 1 to 64 printable ASCII characters, opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReferenceId(String);

/// A text that is not a reference id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`referenceId` is 1 to 64 printable ASCII characters, and neither `.` nor `..`")]
pub struct ParseReferenceIdError;

impl ReferenceId {
    /// The id as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as one segment of a path: everything but unreserved characters is escaped (RFC 3986, 2.3).
    #[must_use]
    pub fn path_segment(&self) -> String {
        let mut segment = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => segment.push(char::from(byte)),
                byte if byte.is_ascii_alphanumeric() => segment.push(char::from(byte)),
                byte => segment.push_str(&format!("%{byte:02X}")),
            }
        }
        segment
    }
}

impl FromStr for ReferenceId {
    type Err = ParseReferenceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        // Clients take these two out of a path, however they are escaped (RFC 3986, 5.2.4).
        let is_dots = matches!(text, "." | "..");
        if is_printable && !is_dots && (1..=64).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(ParseReferenceIdError) }
    }
}

/// The media type of what lies behind a link, such as `application/json`: `type/subtype` and parameters, at most 255
/// characters that an HTTP header may hold (RFC 9110, 8.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContentType(String);

/// A text that is not a content type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`contentType` is a media type such as application/json, at most 255 characters")]
pub struct ParseContentTypeError;

impl ContentType {
    /// The media type as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContentType {
    type Err = ParseContentTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_token = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !part.is_empty() && part.bytes().all(allowed)
        };
        let essence = text.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
        let is_media_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
        let is_header = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        if is_media_type && is_header && text.len() <= 255 && !text.ends_with([' ', '\t']) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseContentTypeError)
        }
    }
}

/// Where a link leads: an absolute address of `http` or `https`, at most 2,048 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Href(String);

/// A text that is not the address of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`href` is an absolute http or https address of at most 2,048 bytes")]
pub struct ParseHrefError;

impl Href {
    /// The address as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Href {
    type Err = ParseHrefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = text.len() <= 2048 && !text.chars().any(|letter| letter.is_control() || letter.is_whitespace());
        let is_absolute = || url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        // A URL without its two slashes is mended by parsers; those who get the text may not mend it.
        let has_slashes = text.split_once("://").is_some();
        if is_plain && has_slashes && is_absolute() { Ok(Self(text.to_owned())) } else { Err(ParseHrefError) }
    }
}

/// A link to a referenced thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What lies there.
    pub content_type: ContentType,
    /// Where.
    pub href: Href,
    /// Whether receivers get an address of ours that leads there, instead of `href` itself.
    pub redirect: bool,
}

/// Something that an event speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What it is.
    pub kind: ReferenceType,
    /// Which one.
    pub id: ReferenceId,
    /// Where to find it; may be empty.
    pub links: Vec<Link>,
    /// The content type of its snapshot, where there is one.
    pub snapshot: Option<ContentType>,
}

/// A referenced thing as it was when the event happened, to be stored with the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// The place of its reference in the event's list, counted from 0.
    pub reference: u32,
    /// What the bytes are.
    pub content_type: ContentType,
    /// The bytes, exactly.
    pub body: Bytes,
}

/// The references of an event that is to be published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewReferences {
    /// The source text of their JSON array, without surrounding white space; where there are snapshots, without their bodies.
    pub text: String,
    /// In the order of their references.
    pub snapshots: Vec<NewSnapshot>,
}

impl NewReferences {
    /// References without snapshots.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), snapshots: Vec::new() }
    }

    /// Bytes of all snapshots.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        self.snapshots.iter().map(|snapshot| snapshot.body.len()).sum()
    }
}

/// A link as receivers get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutwardLink<'a> {
    /// What lies there.
    pub content_type: &'a ContentType,
    /// Where.
    pub href: std::borrow::Cow<'a, str>,
}

impl Reference {
    /// Whether the reference has an address of ours: that of its snapshot, or one that leads on to a link.
    #[must_use]
    pub fn has_address(&self) -> bool {
        self.snapshot.is_some() || self.redirect().is_some()
    }

    /// The link that our address leads on to.
    #[must_use]
    pub fn redirect(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.redirect)
    }

    /// The path of our address behind a notification's: `/contracts/b75f`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/{}/{}", self.kind.plural(), self.id.path_segment())
    }

    /// Whether a path's two last segments, the second one unescaped, are this reference's.
    #[must_use]
    pub fn is_at(&self, plural: &str, id: &str) -> bool {
        self.kind.plural() == plural && self.id.as_str() == id
    }

    /// The links as receivers get them: the snapshot first, then the others in their order. `notification` is the address
    /// that our own ones begin with, see [`notification_address`].
    pub fn outward_links<'a>(&'a self, notification: &str) -> Vec<OutwardLink<'a>> {
        let own = || std::borrow::Cow::Owned(format!("{notification}{}", self.path()));
        let snapshot = self.snapshot.iter().map(|content_type| OutwardLink { content_type, href: own() });
        let links = self.links.iter().map(|link| OutwardLink {
            content_type: &link.content_type,
            href: if link.redirect { own() } else { link.href.as_str().into() },
        });
        snapshot.chain(links).collect()
    }
}

/// Why the references of an event do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferencesError {
    /// Of two references one would have to answer for the other.
    #[error("reference {second} is the same as reference {first}, or both have their snapshot or redirect at the same address")]
    Repeated {
        /// The earlier one, counted from 0.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// One address cannot answer with two things.
    #[error("a reference has one snapshot or one link with `redirect`, not more: both are found at the same address")]
    TwoAnswers {
        /// The reference, counted from 0.
        reference: usize,
        /// The link that is too much.
        link: usize,
    },
}

/// Checks that each address of ours answers with one thing.
///
/// # Errors
/// The first reference that is wrong.
pub fn check_addresses(references: &[Reference]) -> Result<(), ReferencesError> {
    for (second, reference) in references.iter().enumerate() {
        let mut redirects = reference.links.iter().enumerate().filter(|(_, link)| link.redirect).map(|(place, _)| place);
        let allowed = usize::from(reference.snapshot.is_none());
        if let Some(link) = redirects.nth(allowed) {
            return Err(ReferencesError::TwoAnswers { reference: second, link });
        }
        let is_repeated = |earlier: &Reference| {
            let is_same = earlier.kind.as_str().eq_ignore_ascii_case(reference.kind.as_str());
            earlier.id == reference.id
                && (is_same || earlier.has_address() && reference.has_address() && earlier.path() == reference.path())
        };
        if let Some(first) = references.iter().take(second).position(is_repeated) {
            return Err(ReferencesError::Repeated { first, second });
        }
    }
    Ok(())
}

/// The address that all links of one notification begin with; `public_url` has no slash at its end.
#[must_use]
pub fn notification_address(public_url: &str, notification_id: &str) -> String {
    format!("{public_url}/api/public/v2/notifications/{notification_id}")
}

impl fmt::Display for ReferenceType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(kind: &str, id: &str) -> Reference {
        Reference { kind: kind.parse().unwrap(), id: id.parse().unwrap(), links: Vec::new(), snapshot: None }
    }

    fn link(href: &str, redirect: bool) -> Link {
        Link { content_type: "text/html".parse().unwrap(), href: href.parse().unwrap(), redirect }
    }

    #[test]
    fn known_types_have_plurals_of_their_own() {
        let plural = |kind: &str| kind.parse::<ReferenceType>().unwrap().plural();
        assert_eq!(
            ["inquiry", "consultation", "customer", "booking", "Contract", "file", "offer", "questionnaire", "tender", "claim"].map(plural),
            [
                "inquiries",
                "consultations",
                "customers",
                "bookings",
                "contracts",
                "files",
                "offers",
                "questionnaires",
                "tenders",
                "references"
            ]
        );
    }

    #[test]
    fn an_id_is_printable_ascii_and_no_dots() {
        for text in ["1", "b75f-…".trim_end_matches('…'), "a/b c?%", "...", &"x".repeat(64)] {
            assert_eq!(text.parse::<ReferenceId>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "å", "a\nb", "a\u{7f}", &"x".repeat(65)] {
            assert_eq!(text.parse::<ReferenceId>(), Err(ParseReferenceIdError), "{text:?}");
        }
        assert_eq!("a/b c?%~.".parse::<ReferenceId>().unwrap().path_segment(), "a%2Fb%20c%3F%25~.");
    }

    #[test]
    fn a_content_type_fits_a_header() {
        for text in ["application/json", "text/html; charset=utf-8", "application/vnd.x+json;v=\"1\"", "a/b"] {
            assert_eq!(text.parse::<ContentType>().unwrap().as_str(), text);
        }
        for text in ["", "json", "a/", "/b", "a b/c", "a/b\r\nX: y", "a/b ", " a/b", "ä/b", "a/b; x=ä", &format!("a/{}", "b".repeat(254))]
        {
            assert_eq!(text.parse::<ContentType>(), Err(ParseContentTypeError), "{text:?}");
        }
    }

    #[test]
    fn a_link_leads_to_an_absolute_address_of_the_web() {
        for text in ["https://a.example/b?c#d", "http://127.0.0.1:1/", "https://bücher.example/ä"] {
            assert_eq!(text.parse::<Href>().unwrap().as_str(), text);
        }
        let long = format!("https://a.example/{}", "b".repeat(2048));
        for text in [
            "",
            "/a",
            "a.example",
            "javascript:alert(1)",
            "ftp://a/b",
            "https:a.example",
            "https://",
            "https://a b/",
            "https://a/\n",
            &long,
        ] {
            assert_eq!(text.parse::<Href>(), Err(ParseHrefError), "{text:?}");
        }
    }

    #[test]
    fn our_addresses_stand_in_for_snapshots_and_redirects_only() {
        let one = Reference {
            snapshot: Some("application/json".parse().unwrap()),
            links: vec![link("https://a.example/1", false)],
            ..reference("contract", "b 7")
        };
        let hrefs = |reference: &Reference| {
            let base = notification_address("https://e.example", "n-1");
            let links = reference.outward_links(&base);
            links.iter().map(|link| format!("{} {}", link.content_type.as_str(), link.href)).collect::<Vec<_>>()
        };
        let ours = "https://e.example/api/public/v2/notifications/n-1";
        assert_eq!(hrefs(&one), [format!("application/json {ours}/contracts/b%207"), "text/html https://a.example/1".to_owned()]);
        let other =
            Reference { links: vec![link("https://a.example/1", false), link("https://a.example/2", true)], ..reference("claim", "1") };
        assert_eq!(hrefs(&other), ["text/html https://a.example/1".to_owned(), format!("text/html {ours}/references/1")]);
        assert!(one.is_at("contracts", "b 7") && !one.is_at("contracts", "b%207") && !one.is_at("references", "b 7"));
        assert_eq!(hrefs(&reference("file", "1")), Vec::<String>::new());
    }

    #[test]
    fn one_address_answers_with_one_thing() {
        let json: ContentType = "application/json".parse().unwrap();
        let with_snapshot = |kind: &str| Reference { snapshot: Some(json.clone()), ..reference(kind, "1") };
        let redirect = || link("https://a.example/", true);
        assert_eq!(check_addresses(&[reference("claim", "1"), reference("policy", "1"), reference("claim", "2")]), Ok(()));
        assert_eq!(check_addresses(&[with_snapshot("claim"), reference("policy", "1"), with_snapshot("contract")]), Ok(()));
        let repeated = Err(ReferencesError::Repeated { first: 0, second: 1 });
        assert_eq!(check_addresses(&[reference("claim", "1"), reference("Claim", "1")]), repeated);
        assert_eq!(check_addresses(&[with_snapshot("claim"), Reference { links: vec![redirect()], ..reference("policy", "1") }]), repeated);
        let two = |reference: Reference| check_addresses(&[reference]);
        assert_eq!(two(Reference { links: vec![redirect()], ..reference("claim", "1") }), Ok(()));
        assert_eq!(
            two(Reference { links: vec![redirect(), redirect()], ..reference("claim", "1") }),
            Err(ReferencesError::TwoAnswers { reference: 0, link: 1 })
        );
        assert_eq!(
            two(Reference { links: vec![redirect()], ..with_snapshot("claim") }),
            Err(ReferencesError::TwoAnswers { reference: 0, link: 0 })
        );
    }
}
