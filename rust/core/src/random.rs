//! Randomness. It is drawn from the operating system for many uses at once, since each draw is a system call. A forked
//! process draws again, since it would otherwise use the same random numbers as its parent.

use std::process;

/// Why nothing could be drawn.
pub type Error = getrandom::Error;

/// What a thread has drawn, and the process in which it did.
#[derive(Debug)]
pub(crate) struct Drawn<T> {
    process: u32,
    known: Option<T>,
}

impl<T> Drawn<T> {
    pub(crate) const fn nothing() -> Self {
        Self {
            process: 0,
            known: None,
        }
    }

    /// Returns what this process has drawn; it draws first if only a process that it was forked from has.
    #[inline]
    pub(crate) fn of_this_process(
        &mut self,
        draw: impl FnOnce() -> Result<T, Error>,
    ) -> Result<&mut T, Error> {
        self.of_process(process::id(), draw)
    }

    #[inline]
    fn of_process(
        &mut self,
        process: u32,
        draw: impl FnOnce() -> Result<T, Error>,
    ) -> Result<&mut T, Error> {
        if self.process != process {
            self.known = None;
            self.process = process;
        }
        match self.known {
            Some(ref mut known) => Ok(known),
            None => Ok(self.known.insert(draw()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_draws_again() {
        let mut drawn = Drawn::nothing();
        let mut of = |process, number| drawn.of_process(process, || Ok(number)).copied();
        assert_eq!(of(1, 10), Ok(10));
        assert_eq!(of(1, 11), Ok(10));
        assert_eq!(of(2, 12), Ok(12));
        assert_eq!(of(1, 13), Ok(13));
        assert_eq!(of(1, 14), Ok(13));
    }

    #[test]
    fn what_could_not_be_drawn_is_drawn_the_next_time() {
        let mut drawn = Drawn::nothing();
        let broken = drawn.of_process(1, || Err(Error::UNSUPPORTED)).copied();
        assert_eq!(broken, Err::<u8, _>(Error::UNSUPPORTED));
        assert_eq!(drawn.of_process(1, || Ok(7)).copied(), Ok(7));
    }
}
