//! How a subscription authorizes itself at its receiver, as it is asked for and shown.

use std::collections::BTreeMap;

use serde_json::Value;

use super::members::{MASK, check_members, missing, refused, secret, text, word};
use super::publish::Refusal;
use crate::domain::subscription::{Auth, ClientCredentials, Credential, TokenMethod};

/// The longest value of a member, in bytes; a private key as PEM has room.
const BYTES_MAX: usize = 16_384;

#[derive(Clone, Copy)]
enum Kind {
    None,
    Bearer,
    Basic,
    OAuth2,
}

impl Kind {
    const ALL: [Self; 4] = [Self::None, Self::Bearer, Self::Basic, Self::OAuth2];

    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::OAuth2 => "oauth2_client_credentials",
        }
    }

    const fn members(self) -> &'static [&'static str] {
        match self {
            Self::None => &["kind"],
            Self::Bearer => &["kind", "token"],
            Self::Basic => &["kind", "username", "password"],
            Self::OAuth2 => &["kind", "tokenUrl", "clientId", "clientSecret", "privateKey", "scope", "audience", "method"],
        }
    }
}

/// The members of one `auth`.
struct Members<'a> {
    object: &'a serde_json::Map<String, Value>,
    pointer: &'a str,
}

impl Members<'_> {
    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    fn optional(&self, name: &str) -> Result<Option<String>, Refusal> {
        let Some(value) = self.object.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let given = text(value, &self.at(name))?;
        if given.is_empty() || given.len() > BYTES_MAX {
            return Err(refused(&self.at(name), format!("must be a text of 1 to {BYTES_MAX} bytes")));
        }
        Ok(Some(given.to_owned()))
    }

    fn required(&self, name: &str) -> Result<String, Refusal> {
        self.optional(name)?.ok_or_else(|| missing(&self.at(name), name))
    }

    /// A secret, which the mask keeps as it is in `current`.
    fn secret(&self, name: &str, current: Option<&String>) -> Result<String, Refusal> {
        secret(self.required(name)?, current, &self.at(name))
    }
}

/// Reads the member `auth`; a masked secret keeps the one of `current` if that is of the same kind.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub(super) fn parse_auth(value: &Value, pointer: &str, current: &Auth) -> Result<Auth, Refusal> {
    let object = value.as_object().ok_or_else(|| refused(pointer, "must be an object with a member `kind`"))?;
    let members = Members { object, pointer };
    let kind = word(object.get("kind").unwrap_or(&Value::Null), &members.at("kind"), &Kind::ALL, Kind::as_str)?;
    check_members(object, kind.members(), pointer)?;
    Ok(match kind {
        Kind::None => Auth::None,
        Kind::Bearer => {
            let kept = if let Auth::Bearer(kept) = current { Some(kept) } else { None };
            Auth::Bearer(members.secret("token", kept)?)
        }
        Kind::Basic => {
            let kept = if let Auth::Basic(_, kept) = current { Some(kept) } else { None };
            Auth::Basic(members.required("username")?, members.secret("password", kept)?)
        }
        Kind::OAuth2 => Auth::OAuth2(Box::new(parse_client(&members, current)?)),
    })
}

/// Reads the members of `oauth2_client_credentials`. With a private key and no method, the method is `private_key_jwt`.
fn parse_client(members: &Members<'_>, current: &Auth) -> Result<ClientCredentials, Refusal> {
    let named = members.object.get("method").filter(|value| !value.is_null());
    let method = match named {
        Some(value) => word(value, &members.at("method"), &TokenMethod::ALL, TokenMethod::as_str)?,
        None if members.object.contains_key("privateKey") => TokenMethod::PrivateKeyJwt,
        None => TokenMethod::Basic,
    };
    let is_assertion = method == TokenMethod::PrivateKeyJwt;
    let (wanted, other) = if is_assertion { ("privateKey", "clientSecret") } else { ("clientSecret", "privateKey") };
    if members.object.get(other).is_some_and(|value| !value.is_null()) {
        return Err(refused(&members.at(other), format!("the method `{}` takes `{wanted}` instead", method.as_str())));
    }
    let token_url = members.required("tokenUrl")?;
    // A secret is shown to the token service: whoever may not read it must not have it sent to one of their own.
    let is_kept = |client: &ClientCredentials| {
        (client.method == TokenMethod::PrivateKeyJwt) == is_assertion && (is_assertion || client.token_url == token_url)
    };
    let kept = match current {
        Auth::OAuth2(client) if is_kept(client) => Some(&client.credential.0),
        _ => None,
    };
    Ok(ClientCredentials {
        client_id: members.required("clientId")?,
        method,
        credential: Credential(members.secret(wanted, kept)?),
        token_url,
        scope: members.optional("scope")?,
        audience: members.optional("audience")?,
    })
}

/// The member `auth` without its secrets.
pub(super) fn auth_shape(auth: &Auth) -> BTreeMap<&'static str, String> {
    let masked = || MASK.to_owned();
    let kind = |kind: Kind| ("kind", kind.as_str().to_owned());
    match auth {
        Auth::None => BTreeMap::from([kind(Kind::None)]),
        Auth::Bearer(_) => BTreeMap::from([kind(Kind::Bearer), ("token", masked())]),
        Auth::Basic(name, _) => BTreeMap::from([kind(Kind::Basic), ("username", name.clone()), ("password", masked())]),
        Auth::OAuth2(client) => {
            let credential = if client.method == TokenMethod::PrivateKeyJwt { "privateKey" } else { "clientSecret" };
            let mut shape = BTreeMap::from([
                kind(Kind::OAuth2),
                ("tokenUrl", client.token_url.clone()),
                ("clientId", client.client_id.clone()),
                ("method", client.method.as_str().to_owned()),
                (credential, masked()),
            ]);
            shape.extend(client.scope.clone().map(|scope| ("scope", scope)));
            shape.extend(client.audience.clone().map(|audience| ("audience", audience)));
            shape
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value, current: &Auth) -> Result<Auth, Refusal> {
        parse_auth(value, "/auth", current)
    }

    fn client(more: &Value) -> Value {
        let mut value = json!({"kind":"oauth2_client_credentials","tokenUrl":"https://id.example/token","clientId":"c"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        value
    }

    #[test]
    fn a_client_is_shown_as_it_was_asked_for_but_for_its_secret() {
        let asked = client(&json!({"clientSecret":"s","scope":"a b","audience":"x","method":"client_secret_post"}));
        let auth = parse(&asked, &Auth::None).unwrap();
        let mut expected = asked;
        expected["clientSecret"] = json!("***");
        assert_eq!(json!(auth_shape(&auth)), expected);
        let key = parse(&client(&json!({"privateKey":"PEM"})), &Auth::None).unwrap();
        assert_eq!(json!(auth_shape(&key)), client(&json!({"privateKey":"***","method":"private_key_jwt"})));
    }

    #[test]
    fn the_mask_keeps_a_secret_of_the_same_kind_only() {
        let auth = parse(&client(&json!({"clientSecret":"s"})), &Auth::None).unwrap();
        let kept = parse(&client(&json!({"clientSecret":"***","scope":"a"})), &auth).unwrap();
        let Auth::OAuth2(kept) = kept else { panic!("{kept:?}") };
        assert_eq!((kept.credential.0.as_str(), kept.scope.as_deref()), ("s", Some("a")));
        assert_eq!(parse(&client(&json!({"privateKey":"***"})), &auth).unwrap_err().pointer.as_deref(), Some("/auth/privateKey"));
    }

    #[test]
    fn mistakes_are_named_with_their_pointer() {
        let pointer = |value: &Value| parse(value, &Auth::None).unwrap_err().pointer.unwrap();
        assert_eq!(pointer(&json!({"kind":"oauth2"})), "/auth/kind");
        assert_eq!(pointer(&client(&json!({}))), "/auth/clientSecret");
        assert_eq!(pointer(&client(&json!({"method":"private_key_jwt"}))), "/auth/privateKey");
        assert_eq!(pointer(&client(&json!({"clientSecret":"s","privateKey":"k","method":"client_secret_basic"}))), "/auth/privateKey");
        assert_eq!(pointer(&client(&json!({"clientSecret":"s","method":"basic"}))), "/auth/method");
        assert_eq!(pointer(&client(&json!({"clientSecret":""}))), "/auth/clientSecret");
        assert_eq!(pointer(&client(&json!({"clientSecret":"s","scopes":"a"}))), "/auth/scopes");
        assert_eq!(pointer(&json!({"kind":"bearer"})), "/auth/token");
    }
}
