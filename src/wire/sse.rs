//! Blocks of a stream of server-sent events (WHATWG HTML, 9.2.6).

/// The content type of a stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Appends an event. `data` must be one line: an envelope has no line breaks of its own, those of a payload are escaped.
pub fn event(out: &mut Vec<u8>, id: &str, kind: &str, data: &[u8]) {
    for part in [b"id: ".as_slice(), id.as_bytes(), b"\nevent: ", kind.as_bytes(), b"\ndata: ", data, b"\n\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends a position without an event: a client remembers it and dispatches nothing.
pub fn position(out: &mut Vec<u8>, id: &str) {
    for part in [b"id: ".as_slice(), id.as_bytes(), b"\n\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends a comment of one line, which clients pass over.
pub fn comment(out: &mut Vec<u8>, text: &str) {
    for part in [b": ".as_slice(), text.as_bytes(), b"\n\n"] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_with_an_empty_line() {
        let mut out = Vec::new();
        comment(&mut out, "hello");
        position(&mut out, "c0");
        event(&mut out, "c1", "claim.created", br#"{"id":1,"payload":"{\n}"}"#);
        let expected = ": hello\n\nid: c0\n\nid: c1\nevent: claim.created\ndata: {\"id\":1,\"payload\":\"{\\n}\"}\n\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
