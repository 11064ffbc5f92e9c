//! How many frames a server may send that carry nothing: each costs it ten bytes, and this side much more.

/// Frames without content that are allowed in a second, whatever else is sent.
const FRAMES_PER_SECOND: f64 = 1000.0;
/// Frames without content that are allowed at once, at most.
const MOST_FRAMES: f64 = 4000.0;
/// Frames that each frame of a request may be answered with, in HTTP/2: headers, trailers, updates of two windows, a ping.
const FRAMES_FOR_A_FRAME: f64 = 6.0;
/// Bytes of content, in either direction, for which one frame more is allowed: they move the windows of HTTP/2.
const BYTES_FOR_A_FRAME: f64 = 1024.0;

/// What is left of the frames that a server may send.
///
/// It is only drawn from by what costs work and brings nothing, so that no server of good will notices it: of HTTP/2 rapid
/// resets, pings, settings, priorities, updates of windows, empty data and headers; of a websocket pings and pongs.
pub struct Budget {
    left: f64,
    at: f64,
}

impl Budget {
    pub fn new() -> Self {
        Self {
            left: MOST_FRAMES,
            at: 0.0,
        }
    }

    /// Lets it grow with time.
    pub fn grow(&mut self, now: f64) {
        self.add((now - self.at).max(0.0) * FRAMES_PER_SECOND);
        self.at = now;
    }

    /// Lets it grow by the frames of requests that were sent; answers to the server's own frames do not count.
    pub fn sent(&mut self, frames: usize, bytes: usize) {
        self.add(as_f64(frames) * FRAMES_FOR_A_FRAME + as_f64(bytes) / BYTES_FOR_A_FRAME);
    }

    /// Lets it grow by content that was received.
    pub fn received(&mut self, bytes: usize) {
        self.add(as_f64(bytes) / BYTES_FOR_A_FRAME);
    }

    /// Takes one frame out of it; returns whether there was one left.
    pub fn spend(&mut self) -> bool {
        self.left -= 1.0;
        self.left >= 0.0
    }

    fn add(&mut self, frames: f64) {
        self.left = (self.left + frames).min(MOST_FRAMES);
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of bytes in memory, and a rough one will do"
)]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &mut Budget) -> usize {
        (0..100_000).take_while(|_| budget.spend()).count()
    }

    #[test]
    fn it_ends_and_grows_with_time_and_with_content() {
        let mut budget = Budget::new();
        assert_eq!(spent(&mut budget), 4000);
        budget = Budget::new();
        spent(&mut budget);
        budget.left = 0.0;
        budget.grow(1.0);
        assert_eq!(spent(&mut budget), 1000);
        budget.left = 0.0;
        budget.grow(0.5);
        assert_eq!(spent(&mut budget), 0, "a clock that went back");
        budget.left = 0.0;
        budget.sent(2, 2048);
        budget.received(1024);
        assert_eq!(spent(&mut budget), 15);
        budget.grow(1e9);
        assert_eq!(spent(&mut budget), 4000);
    }
}
