//! All routes: method, path, who may call, and what answers.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::api::{
    clients, companies, cursors, deliveries, egress, events, handshakes, keys, notifications, publish, replays, streams, subscriptions,
    system,
};
use super::call::Call;
use super::fault::Fault;
use super::gate::{Access, OpenCall, Render, Route, guarded, open};
use super::{bridge, oauth, operations};
use crate::domain::key::Bucket::{Admin as AdminBucket, Read, Write};
use crate::domain::scope::Scope::{
    Admin, DeliveriesRead, DeliveriesReplay, EventsRead, EventsWrite, SubscriptionsRead, SubscriptionsWrite,
};
use crate::service::Services;

/// Routes in the making.
struct Table {
    services: Services,
    router: Router,
}

impl Table {
    fn route(&self, label: &'static str, access: Access) -> Arc<Route> {
        self.route_of(label, access, |fault, path, request_id, _| fault.render(path, request_id))
    }

    fn route_of(&self, label: &'static str, access: Access, render: Render) -> Arc<Route> {
        Arc::new(Route { access, render, services: self.services.clone(), counters: self.services.metrics.route(label) })
    }

    /// A call of the bridge, whose refusals have a shape of their own.
    fn bridged<H, F>(self, label: &'static str, access: Access, handler: H) -> Self
    where
        H: Fn(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Fault>> + Send + 'static,
    {
        let route = self.route_of(label, access, bridge::render);
        self.add(label, move |request: Request<Body>| guarded(Arc::clone(&route), request, handler.clone()))
    }

    /// A call for those whom `access` lets in; `label` is its method and its path.
    fn guarded<H, F>(self, label: &'static str, access: Access, handler: H) -> Self
    where
        H: Fn(Call) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Fault>> + Send + 'static,
    {
        let route = self.route(label, access);
        self.add(label, move |request: Request<Body>| guarded(Arc::clone(&route), request, handler.clone()))
    }

    /// A call for everybody.
    fn open<H, F>(self, label: &'static str, access: Access, handler: H) -> Self
    where
        H: Fn(OpenCall) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, Fault>> + Send + 'static,
    {
        let route = self.route(label, access);
        self.add(label, move |request: Request<Body>| open(Arc::clone(&route), request, handler.clone()))
    }

    fn add<H, F>(self, label: &'static str, handler: H) -> Self
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let (method, path) = label.split_once(' ').unwrap_or(("GET", label));
        let method = Method::from_bytes(method.as_bytes()).ok().and_then(|method| MethodFilter::try_from(method).ok());
        let endpoint: MethodRouter = on(method.unwrap_or(MethodFilter::GET), handler);
        Self { router: self.router.route(path, endpoint), ..self }
    }

    /// What answers where no route does.
    fn finish(self) -> Router {
        let (unknown, wrong_method) = (self.route("unknown", Access::Open), self.route("wrong method", Access::Open));
        let not_found = |_: OpenCall| async { Err(Fault::no_such_path()) };
        let not_allowed = |_: OpenCall| async { Err(Fault::method_not_allowed()) };
        self.router
            .fallback(move |request: Request<Body>| open(Arc::clone(&unknown), request, not_found))
            .method_not_allowed_fallback(move |request: Request<Body>| open(Arc::clone(&wrong_method), request, not_allowed))
    }
}

/// The routes over these services.
pub(super) fn router(services: &Services) -> Router {
    let table = Table { services: services.clone(), router: Router::new() };
    table
        .guarded("GET /api/v1/events", Access::Key(EventsRead, Read), events::list)
        .guarded("GET /api/v1/events/stream", Access::Key(EventsRead, Read), streams::open)
        .guarded("GET /api/v1/events/{id}", Access::Key(EventsRead, Read), events::get)
        .guarded("GET /api/v1/events/sample", Access::Key(EventsRead, Read), events::sample)
        .guarded("GET /api/v1/events/types", Access::Key(EventsRead, Read), events::types)
        .guarded("POST /api/v1/events", Access::Key(EventsWrite, Write), publish::one)
        .guarded("POST /api/v1/events/test", Access::Key(Admin, Write), publish::test)
        .guarded("POST /api/v1/events/batch", Access::Key(EventsWrite, Write), publish::batch)
        .guarded("GET /api/v1/cursors", Access::Key(EventsRead, Read), cursors::list)
        .guarded("GET /api/v1/cursors/{name}", Access::Key(EventsRead, Read), cursors::get)
        .guarded("PUT /api/v1/cursors/{name}", Access::Key(EventsRead, Write), cursors::set)
        .guarded("DELETE /api/v1/cursors/{name}", Access::Key(EventsRead, Write), cursors::delete)
        .guarded("POST /api/v1/webhooks/subscriptions", Access::Key(SubscriptionsWrite, Write), subscriptions::create)
        .guarded("GET /api/v1/webhooks/subscriptions", Access::Key(SubscriptionsRead, Read), subscriptions::list)
        .guarded("GET /api/v1/webhooks/subscriptions/{id}", Access::Key(SubscriptionsRead, Read), subscriptions::get)
        .guarded("PATCH /api/v1/webhooks/subscriptions/{id}", Access::Key(SubscriptionsWrite, Write), subscriptions::change)
        .guarded("DELETE /api/v1/webhooks/subscriptions/{id}", Access::Key(SubscriptionsWrite, Write), subscriptions::delete)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/pause", Access::Key(SubscriptionsWrite, Write), subscriptions::pause)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/resume", Access::Key(SubscriptionsWrite, Write), subscriptions::resume)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/test", Access::Key(SubscriptionsWrite, Write), subscriptions::test)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/verify", Access::Key(SubscriptionsWrite, Write), handshakes::verify)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/check", Access::Key(SubscriptionsWrite, Write), handshakes::check)
        .guarded("GET /api/v1/webhooks/public-key", Access::Key(SubscriptionsRead, Read), handshakes::public_key)
        .open("GET /api/v1/webhooks/consent/{token}", Access::Open, handshakes::consent)
        .open("POST /api/v1/webhooks/consent/{token}", Access::Open, handshakes::consent)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/rotate-secret", Access::Key(SubscriptionsWrite, Write), subscriptions::rotate)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/replay", Access::Key(DeliveriesReplay, Write), replays::start)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/retry", Access::Key(DeliveriesReplay, Write), deliveries::retry_all)
        .guarded("POST /api/v1/webhooks/subscriptions/{id}/discard", Access::Key(DeliveriesReplay, Write), deliveries::discard_all)
        .guarded("GET /api/v1/webhooks/subscriptions/{id}/deliveries", Access::Key(DeliveriesRead, Read), deliveries::list)
        .guarded("GET /api/v1/deliveries/{id}", Access::Key(DeliveriesRead, Read), deliveries::get)
        .guarded("POST /api/v1/deliveries/{id}/retry", Access::Key(DeliveriesReplay, Write), deliveries::retry)
        .guarded("POST /api/v1/deliveries/{id}/discard", Access::Key(DeliveriesReplay, Write), deliveries::discard)
        .guarded(
            "GET /api/public/v2/notifications/{notificationId}/{plural}/{referenceId}",
            Access::Key(EventsRead, Read),
            notifications::get,
        )
        .guarded("GET /api/v1/replays", Access::Key(DeliveriesRead, Read), replays::list)
        .guarded("GET /api/v1/replays/{id}", Access::Key(DeliveriesRead, Read), replays::get)
        .guarded("POST /api/v1/replays/{id}/cancel", Access::Key(DeliveriesReplay, Write), replays::cancel)
        .guarded("POST /api/v1/admin/companies", Access::Key(Admin, AdminBucket), companies::create)
        .guarded("GET /api/v1/admin/companies", Access::Key(Admin, AdminBucket), companies::list)
        .guarded("POST /api/v1/admin/keys", Access::Key(Admin, AdminBucket), keys::create)
        .guarded("GET /api/v1/admin/keys", Access::Key(Admin, AdminBucket), keys::list)
        .guarded("DELETE /api/v1/admin/keys/{id}", Access::Key(Admin, AdminBucket), keys::revoke)
        .guarded("POST /api/v1/admin/companies/{id}/clients", Access::Key(Admin, AdminBucket), clients::create)
        .guarded("GET /api/v1/admin/companies/{id}/clients", Access::Key(Admin, AdminBucket), clients::list)
        .guarded("GET /api/v1/admin/companies/{id}/clients/{client}", Access::Key(Admin, AdminBucket), clients::get)
        .guarded("PATCH /api/v1/admin/companies/{id}/clients/{client}", Access::Key(Admin, AdminBucket), clients::change)
        .guarded("DELETE /api/v1/admin/companies/{id}/clients/{client}", Access::Key(Admin, AdminBucket), clients::revoke)
        .guarded(
            "POST /api/v1/admin/companies/{id}/clients/{client}/rotate-secret",
            Access::Key(Admin, AdminBucket),
            clients::rotate_secret,
        )
        .guarded("POST /api/v1/admin/companies/{id}/clients/{client}/keys", Access::Key(Admin, AdminBucket), clients::add_key)
        .guarded("DELETE /api/v1/admin/companies/{id}/clients/{client}/keys/{key}", Access::Key(Admin, AdminBucket), clients::remove_key)
        .guarded("GET /api/v1/admin/config", Access::Key(Admin, AdminBucket), system::config)
        .guarded("GET /api/v1/admin/audit", Access::Key(Admin, AdminBucket), system::audit)
        .guarded("GET /api/v1/admin/status", Access::Key(Admin, AdminBucket), system::status)
        .guarded("POST /api/v1/admin/verify", Access::Local, system::verify)
        .guarded("POST /api/v1/admin/egress/check", Access::Local, egress::check)
        .open("POST /oauth2/token", Access::Open, oauth::token)
        .open("POST /connect/token", Access::Open, oauth::token)
        .open("POST /v1/oauth2/token", Access::Open, oauth::token)
        .open("POST /api/auth/v2/token", Access::Open, oauth::access_key_token)
        .open("GET /oauth2/jwks", Access::Open, oauth::jwks)
        .open("GET /.well-known/oauth-authorization-server", Access::Open, oauth::metadata)
        .bridged("POST /api/events/v1/{country}/external/{tenant}/send", Access::Bridge(EventsWrite, Write), bridge::send)
        .bridged("GET /api/events/v1/{country}/external/{tenant}/receive", Access::Bridge(EventsRead, Read), bridge::receive)
        .open("GET /healthz", Access::Open, operations::health)
        .open("GET /readyz", Access::Open, operations::readiness)
        .open("GET /metrics", Access::Metrics, operations::metrics)
        .finish()
}
