//! Bodies that end in the middle.

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio_util::io::ReaderStream;

/// The first half of `body`, of no stated length. Sent under the `Content-Length` of the whole, it ends the
/// connection with it.
pub(super) fn cut_off(mut body: Vec<u8>) -> Body {
    body.truncate(body.len() / 2);
    Body::from_stream(ReaderStream::new(Cursor::new(body).chain(Breath(false))))
}

/// Holds its breath once, then ends. A body that ends too early makes hyper drop what it has not sent yet,
/// and it sends when the body is not ready: without this, the head would be lost as well.
struct Breath(bool);

impl AsyncRead for Breath {
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
