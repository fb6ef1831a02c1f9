//! A request by hand, from inside a host's network namespace.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use e2e::Host;

/// The whole answer to `GET /`, or why there is none.
pub(crate) fn get(host: &Host, address: &str) -> std::io::Result<String> {
    let address = address.to_owned();
    host.on_host(move || fetch(&address))
}

fn fetch(address: &str) -> std::io::Result<String> {
    let target = address.parse().expect("tests write addresses correctly");
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks until something answers, for services that start without a health check. Gives up after 20 s.
pub(crate) fn get_soon(host: &Host, address: &str) -> String {
    let started = Instant::now();
    loop {
        match get(host, address) {
            Ok(answer) if !answer.is_empty() => return answer,
            outcome => assert!(
                started.elapsed() < Duration::from_secs(20),
                "{address}: {outcome:?}"
            ),
        }
        std::thread::yield_now();
    }
}
