//! What an insurer's systems say, made up: the same for the same seed.

use serde_json::{Value, json};

/// HMS Lutine sank on 9 October 1799.
pub const SEED: u64 = 1799;

/// Bytes of the payload that the publish benches send.
pub const PAYLOAD_BYTES: usize = 1024;

const FIRST_NAMES: [&str; 20] = [
    "Anna", "Jonas", "Freja", "Mikkel", "Ingrid", "Lars", "Sofie", "Emil", "Clara", "Noah", "Ida", "Oskar", "Maja", "Viktor", "Alma",
    "Søren", "Åse", "José", "Zoë", "Łukasz",
];
const LAST_NAMES: [&str; 14] = [
    "Jensen",
    "Müller",
    "Nielsen",
    "Schmidt",
    "Hansen",
    "Rossi",
    "Andersson",
    "O'Brien",
    "Østergaard",
    "García",
    "Novák",
    "D'Angelo",
    "Yılmaz",
    "Þórsson",
];
const PARTS: [&str; 12] = [
    "front bumper",
    "rear door left",
    "windscreen",
    "roof tiles",
    "kitchen floor",
    "boiler",
    "laptop",
    "bicycle",
    "garden fence",
    "dishwasher",
    "ceiling",
    "sofa",
];
const WORDS: &str = "water ran from the ceiling after the pipe broke in the night and the neighbour below called the caretaker who \
    closed the main valve the car was parked when another vehicle reversed into it the driver left a note photos are attached the \
    policyholder asks for a replacement";
const CURRENCIES: [&str; 5] = ["DKK", "EUR", "SEK", "PLN", "GBP"];
const CAUSES: [&str; 6] = ["water", "fire", "theft", "collision", "storm", "glass"];

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// True in about so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.number() as usize % of.len()]
    }

    pub fn hexadecimal(&mut self) -> String {
        format!("{:016x}{:016x}", self.number(), self.number())
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.between(0, last as u64) as usize);
        }
    }
}

pub fn person(dice: &mut Dice) -> Value {
    json!({
        "name": format!("{} {}", dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES)),
        "phone": format!("+45{}", dice.between(10_000_000, 99_999_999)),
        "email": format!("p{}@customer.example", dice.between(1, 99_999)),
    })
}

pub fn money(dice: &mut Dice) -> Value {
    json!({"amount": dice.between(10_000, 9_000_000) as f64 / 100.0, "currency": dice.pick(&CURRENCIES)})
}

pub fn policy(dice: &mut Dice) -> Value {
    json!({
        "number": format!("P-{}", dice.between(1_000_000, 9_999_999)),
        "product": dice.pick(&["home", "motor", "travel", "liability", "accident"]),
        "brand": dice.pick(&["abcinsurance", "budgetinsurance"]),
        "deductible": money(dice),
    })
}

pub fn claim(dice: &mut Dice, items: u64, words: u64) -> Value {
    let items: Vec<Value> =
        (0..items).map(|_| json!({"part": dice.pick(&PARTS), "age": dice.between(0, 20), "estimate": money(dice)})).collect();
    json!({
        "id": format!("C-{}", dice.between(10_000_000, 99_999_999)),
        "lossDate": format!("2026-{:02}-{:02}", dice.between(1, 11), dice.between(1, 28)),
        "cause": dice.pick(&CAUSES),
        "policy": policy(dice),
        "claimant": person(dice),
        "reserve": money(dice),
        "items": items,
        "note": note(dice, words),
    })
}

/// So many words of plain ASCII.
pub fn note(dice: &mut Dice, words: u64) -> String {
    let vocabulary: Vec<&str> = WORDS.split_whitespace().collect();
    let mut text = String::new();
    for number in 0..words {
        if number > 0 {
            text.push(' ');
        }
        text.push_str(dice.pick::<&str>(&vocabulary));
    }
    text
}

/// A claim as JSON of exactly [`PAYLOAD_BYTES`] bytes.
pub fn payload(dice: &mut Dice) -> String {
    let mut body = json!({"claim": claim(dice, 2, 0), "holder": person(dice), "notes": ""});
    let missing = PAYLOAD_BYTES - body.to_string().len();
    let mut notes = note(dice, missing as u64);
    notes.truncate(missing);
    body["notes"] = Value::String(notes);
    let text = body.to_string();
    assert_eq!(text.len(), PAYLOAD_BYTES);
    text
}
