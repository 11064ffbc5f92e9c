//! A server on tonic that answers jina's methods, for the tests of casdk's own HTTP/2 (`tonic_peer.py` starts it).
//!
//!     tonic-peer PORT [max-streams=N] [max-age-ms=N] [stream-only]
//!
//! It prints its port, then its counts for each line that it reads: at once for an empty one, and for "NAME N" when the
//! count of that name has come to N. "stop", or the end of its input, has it stop as a server does that is told to:
//! nothing new is begun, and what is under way is finished. Then it prints its counts once more.

mod answer;
mod counters;
mod message;
mod service;

use std::collections::HashMap;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use counters::Counters;
use service::{Call, Unary};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let listener = listen(words.next().ok_or("name a port")?.parse()?).await?;
    println!("{}", listener.local_addr()?.port());

    let options: HashMap<String, u32> = words
        .map(|word| match word.split_once('=') {
            Some((name, number)) => Ok((name.to_owned(), number.parse()?)),
            None => Ok((word, 1)),
        })
        .collect::<Result<_, std::num::ParseIntError>>()?;
    let counters = Arc::new(Counters::new());
    let mut server = Server::builder().max_concurrent_streams(options.get("max-streams").copied());
    if let Some(age) = options.get("max-age-ms") {
        server = server.max_connection_age(Duration::from_millis(u64::from(*age)));
    }
    let unary = (!options.contains_key("stream-only")).then(|| Unary(counters.clone()));
    let counted = counters.clone();
    let connections = TcpListenerStream::new(listener).map(move |accepted| {
        counted.note_connection();
        accepted.and_then(|socket| socket.set_nodelay(true).map(|()| socket))
    });
    server
        .add_service(Call(counters.clone()))
        .add_optional_service(unary)
        .serve_with_incoming_shutdown(connections, obey(counters.clone()))
        .await?;
    println!("{}", counters.json());
    Ok(())
}

/// Listen as soon as the port is free: the server before, which stops, may have it yet.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(2)).await
            }
            listener => return listener,
        }
    }
}

/// Answer the lines of the test that started the server, until it says "stop" or goes away.
async fn obey(counters: Arc<Counters>) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line == "stop" {
            return;
        }
        if let Some((name, least)) = line.split_once(' ') {
            counters.wait(name, least.parse().expect("a number")).await;
        }
        println!("{}", counters.json());
    }
}
