//! Truncated bodies.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::ReaderStream;

/// The first half of `body`, as a stream without a length. If `Content-Length` is the length of the whole body,
/// hyper closes the connection after the stream.
pub(super) fn truncated(mut body: Vec<u8>) -> Body {
    body.truncate(body.len() / 2);
    Body::from_stream(ReaderStream::new(Cursor::new(body).chain(PendingOnce(false))))
}

/// Returns `Pending` once, then ends. If a body ends too early, hyper discards its unsent buffer, which can include
/// the headers. hyper flushes the buffer when a body is pending.
struct PendingOnce(bool);

impl AsyncRead for PendingOnce {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.0 {
            return Poll::Ready(Ok(()));
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
