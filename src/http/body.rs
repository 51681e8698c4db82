//! Bodies: reading them within bounds, and sending the pieces of a page without copying them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::EXPECT;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::timeout;

use super::fault::Fault;

/// Bytes of a body over its limit that are still read and thrown away, so that its sender gets to read the answer.
const DISCARD_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// The whole body; refused before more than `bytes_max` of it are kept.
pub(super) async fn read(
    body: Body,
    headers: &HeaderMap,
    bytes_max: usize,
    time_max: Duration,
    too_large: StatusCode,
) -> Result<Bytes, Fault> {
    let announced = HttpBody::size_hint(&body).lower();
    if announced > bytes_max as u64 {
        // Who asks first has sent nothing, and reading would be the leave to go on. Of what is not read to its end
        // in any case, nothing is.
        if !headers.contains_key(EXPECT) && announced <= DISCARD_BYTES_MAX {
            discard(body).await;
        }
        return Err(Fault::too_large(too_large, bytes_max));
    }
    match timeout(time_max, collect(body, bytes_max)).await {
        Err(_) => Err(Fault::body_timeout(time_max.as_secs())),
        Ok(Err(Unread::Broken)) => Err(Fault::body_broken()),
        Ok(Err(Unread::TooLarge(rest))) => {
            discard(rest).await;
            Err(Fault::too_large(too_large, bytes_max))
        }
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

enum Unread {
    Broken,
    /// With what is left of it.
    TooLarge(Body),
}

async fn collect(mut body: Body, bytes_max: usize) -> Result<Bytes, Unread> {
    // Nearly every body is one frame, which is then not copied.
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unread::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        let length = rest.as_ref().map_or(first.len(), BytesMut::len) + data.len();
        if length > bytes_max {
            return Err(Unread::TooLarge(body));
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let expected = usize::try_from(HttpBody::size_hint(&body).lower()).unwrap_or(0).min(bytes_max);
                let mut joined = BytesMut::with_capacity(length + expected);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
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
