//! `GET /api/v1/events/stream`: events as they come, as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use tokio::time::Instant;

use super::events::parse_origin;
use crate::config::Streams;
use crate::domain::filter::TypeFilter;
use crate::http::call::Call;
use crate::http::fault::Fault;
use crate::http::timed::Activity;
use crate::service::streams::{Stream, StreamItem, StreamRequest};
use crate::wire::sse;

/// The path of streams; its connections are told to the handler.
pub(in crate::http) const PATH: &str = "/api/v1/events/stream";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Asks proxies that know it to pass on what comes at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET /api/v1/events/stream`
pub(in crate::http) async fn open(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    let query = call.query(&["types", "cursor", "from"])?;
    let filter = query.parsed("types", |text| TypeFilter::parse_list(text).map_err(|error| error.to_string()))?;
    let from = query.parsed("from", parse_origin)?;
    let cursor = query.text("cursor");
    if cursor.is_some() && from.is_some() {
        return Err(Fault::bad_request("invalid_parameter", "the parameters `cursor` and `from` exclude each other"));
    }
    // A client that connects again asks for the same address, and says here how far it has come.
    let cursor = call.header(&LAST_EVENT_ID)?.filter(|id| !id.is_empty()).or(cursor).map(str::to_owned);
    let activity = call.extension::<Arc<Activity>>().cloned().ok_or_else(Fault::needs_connection)?;
    let request = StreamRequest { company, filter: filter.unwrap_or_default(), cursor, from };
    let config = call.services.config.load();
    let stream = call.services.streams.open(request, call.principal.clone(), config.streams.open_max)?;
    let mut response = Response::new(Body::new(StreamBody::new(stream, activity, &config.streams)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Bytes that were handed over and have not all been written.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    /// They have been, once the connection has written so many in all.
    until: u64,
    since: Instant,
}

/// The blocks of a stream. The next ones are asked for when the client has taken the last ones: a slow client costs one
/// hand of blocks, and is cut off when it takes too long over it.
struct StreamBody {
    stream: Stream,
    activity: Arc<Activity>,
    under_way: Option<UnderWay>,
    next_comment: Instant,
    comment_seconds: u32,
    stalled_seconds_max: u32,
    has_begun: bool,
    has_ended: bool,
}

impl StreamBody {
    fn new(stream: Stream, activity: Arc<Activity>, settings: &Streams) -> Self {
        Self {
            stream,
            activity,
            under_way: None,
            next_comment: Instant::now() + Duration::from_secs(settings.comment_seconds.into()),
            comment_seconds: settings.comment_seconds,
            stalled_seconds_max: settings.stalled_seconds_max,
            has_begun: false,
            has_ended: false,
        }
    }

    fn hand(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.under_way = Some(UnderWay { until: self.activity.written() + bytes.len() as u64, since: Instant::now() });
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn end(&mut self, why: &str) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.has_ended = true;
        let mut last = Vec::new();
        sse::comment(&mut last, why);
        self.hand(last.into())
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.has_ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut this.has_begun, true) {
            let opening = this.stream.opening();
            return this.hand(opening);
        }
        if let Some(UnderWay { until, since }) = this.under_way {
            if this.activity.written() < until && !this.stream.poll_over(context) {
                this.activity.wake_at_write();
                if this.stream.is_due(since + Duration::from_secs(this.stalled_seconds_max.into())) {
                    this.stream.end_slow();
                    return this.end("cut off: too slow; go on from the last id");
                }
                return Poll::Pending;
            }
            this.under_way = None;
        }
        match this.stream.poll_next(context) {
            Poll::Ready(StreamItem::Events(bytes)) => this.hand(bytes),
            Poll::Ready(StreamItem::End(why)) => this.end(&why),
            Poll::Pending => {
                if !this.stream.is_due(this.next_comment) {
                    return Poll::Pending;
                }
                this.next_comment = Instant::now() + Duration::from_secs(this.comment_seconds.into());
                let waiting = this.stream.waiting();
                this.hand(waiting)
            }
        }
    }
}
