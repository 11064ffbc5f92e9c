//! The wakers that `h2` calls: they note that the connection is to be polled again, and which calls are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Notes that the connection has to be polled again, e.g. because reading has made room for writing.
#[derive(Default)]
pub struct Again(AtomicBool);

impl Again {
    /// Returns whether it was woken since it was asked the last time.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The calls that something happened to, by the numbers of their streams.
#[derive(Clone, Default)]
pub struct Woken(Arc<Mutex<Vec<u32>>>);

impl Woken {
    /// Returns what wakes one call.
    pub fn waker(&self, stream: u32) -> Waker {
        Waker::from(Arc::new(Call {
            stream,
            woken: self.clone(),
        }))
    }

    /// Puts a call on the list.
    pub fn add(&self, stream: u32) {
        self.list().push(stream);
    }

    /// Moves the list to `into`, which is empty.
    pub fn take(&self, into: &mut Vec<u32>) {
        std::mem::swap(&mut *self.list(), into);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Call {
    stream: u32,
    woken: Woken,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.woken.add(self.stream);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.add(self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wake_up_is_taken_once() {
        let woken = Woken::default();
        let (one, two) = (woken.waker(1), woken.waker(3));
        two.wake_by_ref();
        one.wake();
        let mut list = Vec::new();
        woken.take(&mut list);
        assert_eq!(list, [3, 1]);
        list.clear();
        woken.take(&mut list);
        assert!(list.is_empty());
        let again = Arc::<Again>::default();
        Waker::from(again.clone()).wake();
        assert!(again.take());
        assert!(!again.take());
    }
}
