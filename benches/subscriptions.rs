//! Subscriptions, made and changed through the API.

use serde_json::{Value, json};

use crate::http::{Client, call, post_head};
use crate::load::Requests;

const PATH: &str = "/api/v1/webhooks/subscriptions";

fn body(url: &str, kind: Option<&str>, in_flight: usize) -> Value {
    let types = Vec::from_iter(kind);
    json!({"url": url, "types": types, "profile": "standard", "maxInFlight": in_flight})
}

/// A subscription under this key, to one type or to all of them; its number.
pub fn subscribe(client: &mut Client, url: &str, kind: Option<&str>, in_flight: usize) -> u64 {
    let request = call("POST", PATH, client.key(), &body(url, kind, in_flight).to_string());
    let made: Value = serde_json::from_slice(&client.send(&request, 201).body()).expect("a subscription is JSON");
    made["id"].as_u64().expect("a subscription has a number")
}

/// A subscription under this key to everything, as these wishes say; its number.
pub fn subscribe_as(client: &mut Client, url: &str, wishes: &Value, in_flight: usize) -> u64 {
    let mut body = body(url, None, in_flight);
    body.as_object_mut().unwrap().extend(wishes.as_object().expect("wishes are an object").clone());
    let request = call("POST", PATH, client.key(), &body.to_string());
    let made: Value = serde_json::from_slice(&client.send(&request, 201).body()).expect("a subscription is JSON");
    made["id"].as_u64().expect("a subscription has a number")
}

/// The same with an access token that is fetched at `token_url`.
pub fn subscribe_authorized(client: &mut Client, url: &str, token_url: &str, in_flight: usize) -> u64 {
    let auth = json!({"kind": "oauth2_client_credentials", "tokenUrl": token_url, "clientId": "bench", "clientSecret": "bench"});
    subscribe_as(client, url, &json!({"auth": auth}), in_flight)
}

/// Changes a subscription to order by the value at `pointer`, or to none.
pub fn set_order(client: &mut Client, id: u64, pointer: Option<&str>) {
    let wanted = pointer.map_or_else(|| json!({"ordering": "parallel"}), |pointer| json!({"ordering": "key", "orderingKey": pointer}));
    let request = call("PATCH", &format!("{PATH}/{id}"), client.key(), &wanted.to_string());
    client.send(&request, 200);
}

/// Pauses or resumes a subscription.
pub fn act(client: &mut Client, id: u64, what: &str) {
    let request = call("POST", &format!("{PATH}/{id}/{what}"), client.key(), "");
    client.send(&request, 200);
}

/// Changes a subscription's room.
pub fn set_in_flight(client: &mut Client, id: u64, in_flight: usize) {
    let request = call("PATCH", &format!("{PATH}/{id}"), client.key(), &json!({"maxInFlight": in_flight}).to_string());
    client.send(&request, 200);
}

/// Creations of subscriptions to types that nobody publishes, each to a type of its own.
pub struct Idle {
    key: String,
    next: u64,
}

impl Idle {
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned(), next: 0 }
    }
}

impl Requests for Idle {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        let number = self.next;
        self.next += 1;
        let url = format!("http://127.0.0.1:9/partners/{number}");
        let body = body(&url, Some(&format!("idle{number}.*")), 16).to_string();
        out.extend_from_slice(post_head(PATH, &self.key, "application/json", body.len()).as_bytes());
        out.extend_from_slice(body.as_bytes());
    }
}
