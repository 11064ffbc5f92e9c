//! What happened to the server, for the test that started it.

use std::collections::HashMap;

use tokio::sync::watch;

/// The counts of one server; whoever waits for one is woken as it changes.
pub struct Counters(watch::Sender<Counts>);

#[derive(Default)]
struct Counts {
    connections: u64,
    begun: u64,
    running: u64,
    most_running: u64,
    cancelled: u64,
    /// How often each content was sent to be indexed.
    indexed: HashMap<Vec<u8>, u64>,
    /// The last `grpc-timeout`.
    timeout: String,
}

impl Counters {
    pub fn new() -> Self {
        Self(watch::Sender::new(Counts::default()))
    }

    pub fn note_connection(&self) {
        self.0.send_modify(|counts| counts.connections += 1);
    }

    pub fn note_timeout(&self, timeout: &str) {
        self.0.send_modify(|counts| counts.timeout = timeout.into());
    }

    pub fn note_indexed<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) {
        self.0.send_modify(|counts| {
            for content in contents {
                *counts.indexed.entry(content.to_vec()).or_default() += 1;
            }
        });
    }

    /// Return when the count of that name is at least `least`.
    pub async fn wait(&self, name: &str, least: u64) {
        let mut changes = self.0.subscribe();
        let reached = changes.wait_for(|counts| counts.named(name) >= least).await;
        drop(reached.expect("the sender outlives the wait"));
    }

    pub fn json(&self) -> String {
        let counts = self.0.borrow();
        let names = [
            "connections",
            "begun",
            "most_running",
            "cancelled",
            "indexed",
            "doubled",
        ];
        let numbers = names.map(|name| format!("\"{name}\": {}", counts.named(name)));
        format!(
            "{{{}, \"timeout\": \"{}\"}}",
            numbers.join(", "),
            counts.timeout
        )
    }
}

impl Counts {
    fn named(&self, name: &str) -> u64 {
        match name {
            "connections" => self.connections,
            "begun" => self.begun,
            "running" => self.running,
            "most_running" => self.most_running,
            "cancelled" => self.cancelled,
            "indexed" => self.indexed.len() as u64,
            "doubled" => self.indexed.values().filter(|times| **times > 1).count() as u64,
            _ => panic!("there is no count of {name}"),
        }
    }
}

/// A handler at work; dropped before it has finished, it was cancelled.
pub struct Running<'a> {
    counters: &'a Counters,
    is_finished: bool,
}

impl<'a> Running<'a> {
    pub fn begin(counters: &'a Counters) -> Self {
        counters.0.send_modify(|counts| {
            counts.begun += 1;
            counts.running += 1;
            counts.most_running = counts.most_running.max(counts.running);
        });
        Self {
            counters,
            is_finished: false,
        }
    }

    pub fn finish(mut self) {
        self.is_finished = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.0.send_modify(|counts| {
            counts.running -= 1;
            counts.cancelled += u64::from(!self.is_finished);
        });
    }
}
