//! A day of an insurer's events: the mixture of types and sizes that the disk bench stores.
//!
//! Most payloads have 400–1,500 bytes, a few 20 KB (documents' text), one in 500 is close to the limit of 256 KiB. Some are awkward on
//! purpose (exponents, escapes, repeated members, very large integers).

use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Serializer, Value, json};

use crate::insurance::{Dice, SEED, claim, money, note, person, policy};

/// One event of the day as a line of a batch, with what its publisher gave to keep.
pub struct DayEvent {
    pub line: String,
    pub payload_bytes: u64,
    pub metadata_bytes: u64,
}

/// The endless day.
pub struct Day {
    dice: Dice,
    number: u64,
}

/// Types with their share of a hundred and a few.
const KINDS: [(&str, u64); 10] = [
    ("claim.created", 30),
    ("claim.updated", 25),
    ("claim.closed", 8),
    ("policy.bound", 6),
    ("policy.renewed", 6),
    ("payment_status_updated", 10),
    ("inquiry_created", 5),
    ("contract_created", 4),
    ("document.uploaded", 6),
    ("client.created", 4),
];

const AWKWARD: [&str; 7] = [
    r#"{"amount":1.0,"rate":1e2,"tiny":1E-7,"big":12345678901234567890123,"neg":-0.0}"#,
    r#"{"a":1,"a":2,"A":3}"#,
    "{ \"spaced\" : [ 1 , 2 ,\t3 ] ,\n \"end\" : null }",
    "{\"escapes\":\"\\u00e6\\u2028\\ud83d\\ude00\\/\\b\",\"plain\":\"æ\u{2028}😀/\"}",
    r#"["an array at the top",true,false,null,"",0]"#,
    r#""just a string""#,
    r#"{"z":1,"m":2,"a":{"z":1,"b":2}}"#,
];

impl Default for Day {
    fn default() -> Self {
        Self { dice: Dice::new(SEED), number: 0 }
    }
}

impl Iterator for Day {
    type Item = DayEvent;

    fn next(&mut self) -> Option<DayEvent> {
        let number = self.number;
        self.number += 1;
        let dice = &mut self.dice;
        let kind = pick_kind(dice);
        let payload = if number % 97 == 96 {
            AWKWARD[(number / 97) as usize % AWKWARD.len()].to_owned()
        } else if number % 500 == 499 {
            let mut text = note(dice, 60_000);
            text.truncate(250_000);
            json!({"document": text}).to_string()
        } else {
            let value = content(dice, kind);
            written(&value, Style { ascii: dice.percent(30), spaced: dice.percent(30) })
        };
        let metadata = json!({
            "source": dice.pick(&["claims-core", "policy-admin", "broker-portal"]),
            "correlationId": dice.hexadecimal(),
            "brokerReference": dice.between(1, 999).to_string(),
        });
        let metadata = written(&metadata, Style { ascii: true, spaced: true });
        let (payload_bytes, metadata_bytes) = (payload.len() as u64, metadata.len() as u64);
        let line = json!({"type": kind, "payload": payload, "metadata": metadata, "dedupeKey": format!("day-{number}")}).to_string();
        Some(DayEvent { line, payload_bytes, metadata_bytes })
    }
}

fn pick_kind(dice: &mut Dice) -> &'static str {
    let mut rest = dice.between(1, KINDS.iter().map(|(_, share)| share).sum());
    for (kind, share) in KINDS {
        if rest <= share {
            return kind;
        }
        rest -= share;
    }
    unreachable!("the shares add up")
}

fn content(dice: &mut Dice, kind: &str) -> Value {
    match kind {
        "claim.created" => json!({"claim": whole_claim(dice)}),
        "claim.updated" => json!({
            "claim": whole_claim(dice),
            "changes": [{"property": "reserve", "from": money(dice), "to": money(dice)}],
            "changedBy": person(dice),
        }),
        "claim.closed" => json!({
            "claim": {"id": format!("C-{}", dice.between(10_000_000, 99_999_999))},
            "reason": dice.pick(&["Settled", "NotCovered", "BelowDeductible", "CreatedByMistake"]),
        }),
        "policy.bound" => json!({"policy": policy(dice), "holder": person(dice), "premium": money(dice)}),
        "policy.renewed" => json!({"policy": policy(dice), "premium": money(dice)}),
        "payment_status_updated" => json!({
            "eventType": "payment_status_updated",
            "payloadVersion": "1.0.0",
            "correlationId": dice.hexadecimal(),
            "timestamp": format!("2026-11-{:02}T{:02}:31:28.2519514Z", dice.between(1, 28), dice.between(0, 23)),
            "payment": {
                "uuid": dice.hexadecimal(),
                "status": dice.pick(&["paid", "canceled", "pending"]),
                "statusReason": "Payment rejected by claimant's bank",
            },
        }),
        "inquiry_created" => json!({"inquiry": {
            "id": dice.between(100, 10_000_000),
            "accountReference": "demopool",
            "brokerReference": dice.between(1, 999).to_string(),
        }}),
        "contract_created" => json!({"contract": {"id": dice.hexadecimal(), "inquiry": dice.between(100, 10_000_000)}}),
        "document.uploaded" => json!({
            "FileName": format!("{:016x}.pdf", dice.number()),
            "OriginalFileName": "skade-æøå.pdf",
            "Size": dice.between(10_000, 10_000_000).to_string(),
            "MediaType": "application/pdf",
            "text": document_text(dice),
        }),
        _ => json!({"client": person(dice)}),
    }
}

fn whole_claim(dice: &mut Dice) -> Value {
    let (items, words) = (dice.between(1, 5), dice.between(8, 60));
    claim(dice, items, words)
}

fn document_text(dice: &mut Dice) -> String {
    let words = *dice.pick(&[40, 200, 3000]);
    note(dice, words)
}

/// How a publisher's library writes JSON.
#[derive(Debug, Clone, Copy)]
struct Style {
    /// Other characters than ASCII as `\u` escapes.
    ascii: bool,
    /// A blank behind colons and commas.
    spaced: bool,
}

fn written(value: &Value, style: Style) -> String {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, style)).unwrap();
    String::from_utf8(text).unwrap()
}

impl Style {
    fn separator(self, text: &'static str) -> &'static [u8] {
        if self.spaced { text.as_bytes() } else { &text.as_bytes()[..1] }
    }
}

impl Formatter for Style {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.separator(", ")) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.separator(", ")) }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.separator(": "))
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
