//! Bodies: reading them within bounds, and sending the pieces of a page without copying them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::EXPECT;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::fault::Fault;

/// Bytes of a body over its limit that are still read and thrown away, so that its sender gets to read the answer.
const DISCARD_BYTES_MAX: u64 = 24 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a body with snapshots waits until there is room for it.
const ROOM_TIME_MAX: Duration = Duration::from_secs(10);

/// The whole body; refused before more than `bytes_max` of it are kept.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
    time_max: Duration,
    too_large: StatusCode,
) -> Result<Bytes, Fault> {
    let mut body = refuse_announced(body, headers, bytes_max, too_large).await?;
    let mut gathered = Gathered::default();
    match timeout(time_max, gathered.gather(&mut body, bytes_max)).await {
        Err(_) => Err(Fault::body_timeout(time_max.as_secs())),
        Ok(Err(Broken)) => Err(Fault::body_broken()),
        Ok(Ok(false)) => {
            drop(gathered);
            discard(body).await;
            Err(Fault::too_large(too_large, bytes_max))
        }
        Ok(Ok(true)) => Ok(gathered.finish()),
    }
}

/// The body, unless its head says already that it is too large.
async fn refuse_announced(body: Body, headers: &HeaderMap, bytes_max: usize, too_large: StatusCode) -> Result<Body, Fault> {
    let announced = HttpBody::size_hint(&body).lower();
    if announced <= bytes_max as u64 {
        return Ok(body);
    }
    // Who asks first has sent nothing, and reading would be the leave to go on. Of what is not read to its end in any case,
    // nothing is.
    if !headers.contains_key(EXPECT) && announced <= DISCARD_BYTES_MAX {
        discard(body).await;
    }
    Err(Fault::too_large(too_large, bytes_max))
}

/// When a body may have more bytes than most.
#[derive(Debug)]
pub(super) struct Growth<'a> {
    /// So many at most.
    pub bytes_max: usize,
    /// Whether its first bytes, as many as most bodies may have in all, look as if it may.
    pub may_grow: fn(&[u8]) -> bool,
    /// A permit for each in memory.
    pub room: &'a Arc<Semaphore>,
}

/// As [`read`], but a body that may grow is read on; with its permit. Refused with 413.
pub(super) async fn read_growing(
    body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
    growth: Growth<'_>,
    time_max: Duration,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Fault> {
    let too_large = StatusCode::PAYLOAD_TOO_LARGE;
    let mut body = refuse_announced(body, headers, growth.bytes_max.max(bytes_max), too_large).await?;
    let mut gathered = Gathered::default();
    let timed_out = |_| Fault::body_timeout(time_max.as_secs());
    let broken = |Broken| Fault::body_broken();
    if timeout(time_max, gathered.gather(&mut body, bytes_max)).await.map_err(timed_out)?.map_err(broken)? {
        return Ok((gathered.finish(), None));
    }
    let may_grow = growth.bytes_max > bytes_max && (growth.may_grow)(gathered.bytes());
    if !may_grow {
        drop(gathered);
        discard(body).await;
        return Err(Fault::too_large(too_large, bytes_max));
    }
    let permit = timeout(ROOM_TIME_MAX, Arc::clone(growth.room).acquire_owned()).await;
    let Ok(Ok(permit)) = permit else { return Err(Fault::no_room_for_body()) };
    if timeout(time_max, gathered.gather(&mut body, growth.bytes_max)).await.map_err(timed_out)?.map_err(broken)? {
        return Ok((gathered.finish(), Some(permit)));
    }
    drop((gathered, permit));
    discard(body).await;
    Err(Fault::too_large(too_large, growth.bytes_max))
}

/// The body ended before it was complete.
struct Broken;

/// What has come of a body. Nearly every body is one frame, which is then not copied.
#[derive(Debug, Default)]
struct Gathered {
    first: Bytes,
    joined: Option<BytesMut>,
}

impl Gathered {
    fn bytes(&self) -> &[u8] {
        self.joined.as_deref().unwrap_or(&self.first)
    }

    /// Reads on to the end: true; or until more than `bytes_max` are there, by one frame at most: false.
    async fn gather(&mut self, body: &mut Body, bytes_max: usize) -> Result<bool, Broken> {
        while self.bytes().len() <= bytes_max {
            let Some(frame) = body.frame().await else { return Ok(true) };
            let Ok(data) = frame.map_err(|_| Broken)?.into_data() else { continue };
            match &mut self.joined {
                Some(joined) => joined.extend_from_slice(&data),
                None if self.first.is_empty() => self.first = data,
                None => {
                    let length = self.first.len() + data.len();
                    let expected = usize::try_from(HttpBody::size_hint(body).lower()).unwrap_or(0);
                    let mut joined = BytesMut::with_capacity((length + expected).min(bytes_max.max(length)));
                    joined.extend_from_slice(&self.first);
                    joined.extend_from_slice(&data);
                    self.first = Bytes::new();
                    self.joined = Some(joined);
                }
            }
        }
        Ok(false)
    }

    fn finish(self) -> Bytes {
        self.joined.map_or(self.first, BytesMut::freeze)
    }
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whether it ended or was given up, the answer is the same and the connection closes.
    let _ended = timeout(DISCARD_TIME_MAX, reading).await;
}

/// A body of pieces that are sent one after the other.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Pieces {
    /// A body of these pieces.
    pub fn of(pieces: Vec<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces: pieces.into_iter(), left }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        if let Some(piece) = &piece {
            self.left = self.left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
