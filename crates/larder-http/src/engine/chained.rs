//! A body of which the beginning or the end is stored, and the rest arrives. Knows nothing of where either comes from.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use larder::BoxError;

use super::arriving::Cut;
use crate::Body;
use crate::policy::OF_ONE_MESSAGE;

/// Stored bytes, then those that arrive, then stored bytes. It ends with an error where what arrives is not as long as it
/// says: what comes behind would be in the wrong place.
pub(super) struct Chained {
    before: Body,
    arriving: Body,
    /// How much is still to arrive.
    left: u64,
    after: Body,
    trailers: Option<HeaderMap>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Before,
    Arriving,
    After,
    Over,
}

impl Chained {
    /// So many bytes are to arrive.
    pub(super) fn new(before: Body, arriving: Body, bytes: u64, after: Body) -> Self {
        Self { before, arriving, left: bytes, after, trailers: None, stage: Stage::Before }
    }

    fn cut(&mut self, error: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.stage = Stage::Over;
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for Chained {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            let body = match self.stage {
                Stage::Before => &mut self.before,
                Stage::Arriving => &mut self.arriving,
                Stage::After => &mut self.after,
                Stage::Over => return Poll::Ready(None),
            };
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return self.cut(error),
                None => {
                    self.stage = match self.stage {
                        Stage::Before => Stage::Arriving,
                        Stage::Arriving if self.left > 0 => {
                            let left = self.left;
                            return self
                                .cut(Box::new(Cut::new(format!("{left} bytes of the rest did not come"))));
                        }
                        Stage::Arriving => Stage::After,
                        Stage::After | Stage::Over => {
                            self.stage = Stage::Over;
                            return Poll::Ready(
                                self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
                            );
                        }
                    };
                    continue;
                }
            };
            match (self.stage, frame.into_data()) {
                (Stage::Arriving, Ok(piece)) => match self.left.checked_sub(piece.len() as u64) {
                    Some(left) => {
                        self.left = left;
                        return Poll::Ready(Some(Ok(Frame::data(piece))));
                    }
                    None => return self.cut(Box::new(Cut::new("more than the rest came"))),
                },
                (_, Ok(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                (Stage::Arriving, Err(frame)) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    for name in OF_ONE_MESSAGE {
                        trailers.remove(name);
                    }
                    self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                }
                // Those of what is stored were of another message.
                (_, Err(_)) => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_over = |stage, body: &Body| self.stage > stage || body.is_end_stream();
        self.stage == Stage::Over
            || self.left == 0
                && self.trailers.is_none()
                && is_over(Stage::Before, &self.before)
                && is_over(Stage::Arriving, &self.arriving)
                && is_over(Stage::After, &self.after)
    }

    fn size_hint(&self) -> SizeHint {
        let exact = |body: &Body| body.size_hint().exact();
        let left = exact(&self.before).zip(exact(&self.after));
        left.map_or_else(SizeHint::default, |(before, after)| {
            SizeHint::with_exact(before.saturating_add(self.left).saturating_add(after))
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn trailers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| ((*name).parse().unwrap(), "1".parse().unwrap())).collect()
    }

    async fn read(body: Chained) -> Result<(Bytes, Option<HeaderMap>), String> {
        let read = Body::stream(body).collect().await.map_err(|error| error.to_string())?;
        let trailers = read.trailers().cloned();
        Ok((read.to_bytes(), trailers))
    }

    fn chained(before: &'static str, arriving: &'static str, bytes: u64, after: &'static str) -> Chained {
        Chained::new(before.into(), arriving.into(), bytes, after.into())
    }

    #[tokio::test]
    async fn what_is_stored_is_before_and_behind_what_arrives() {
        for (before, arriving, after) in
            [("01", "23", ""), ("", "01", "23"), ("0", "12", "3"), ("", "0123", ""), ("0123", "", "")]
        {
            let body = chained(before, arriving, arriving.len() as u64, after);
            assert_eq!(body.size_hint().exact(), Some(4));
            assert_eq!(read(body).await.unwrap(), ("0123".into(), None));
        }
    }

    #[tokio::test]
    async fn what_is_not_as_long_as_it_says_is_not_followed() {
        for (arriving, bytes, why) in
            [("123", 4, "1 bytes of the rest did not come"), ("123", 2, "more than the rest")]
        {
            let mut body = Box::pin(chained("0", arriving, bytes, "45"));
            let mut got = Vec::new();
            let error = loop {
                match body.frame().await.unwrap() {
                    Ok(frame) => got.extend(frame.into_data().unwrap()),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains(why) && !got.contains(&b'4'), "{error} after {got:?}");
            assert!(body.frame().await.is_none() && body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn trailers_come_last_and_those_of_the_part_alone_do_not_come() {
        let arriving = Body::from("12").with_trailers(Some(trailers(&["x-sum", "content-digest"])));
        let stored = Body::from("3").with_trailers(Some(trailers(&["x-old"])));
        let (bytes, got) = read(Chained::new("0".into(), arriving, 2, stored)).await.unwrap();
        assert_eq!((bytes.as_ref(), got), (&b"0123"[..], Some(trailers(&["x-sum"]))));
        let alone = Body::from("12").with_trailers(Some(trailers(&["content-digest"])));
        assert_eq!(read(Chained::new("0".into(), alone, 2, Body::empty())).await.unwrap().1, None);
    }

    #[tokio::test]
    async fn it_is_known_to_end_with_its_last_piece() {
        let mut body = Box::pin(chained("0", "1", 1, ""));
        assert!(!body.is_end_stream());
        body.frame().await.unwrap().unwrap();
        assert!(!body.is_end_stream());
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }
}
