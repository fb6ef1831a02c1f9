//! A registry's connections, written here so that they can do everything wrong that a registry's can.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as the registry sees it.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// The connection breaks before the body's end; nobody gets the reply.
    pub(crate) broken: bool,
}

impl Request {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a registry answers.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are sent before the connection breaks.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A registry on a loopback port, with a log of what it was asked.
pub(crate) struct Server {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<String>>>,
    /// After so many bytes of the next body that is longer, the connection breaks.
    break_after: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let log = Arc::clone(&asked);
        let break_after = Arc::new(Mutex::new(Vec::new()));
        let breaks = Arc::clone(&break_after);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let breaks = Arc::clone(&breaks);
                std::thread::spawn(move || serve(connection, &*handler, &log, &breaks));
            }
        });
        Self {
            address,
            asked,
            break_after,
        }
    }

    /// Breaks a connection after `bytes` of a body; one call, one break.
    pub(crate) fn break_after(&self, bytes: usize) {
        self.break_after.lock().unwrap().push(bytes);
    }

    /// What it was asked since the last call.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub(crate) fn asked(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.contains(what)).count()
    }
}

/// A body by length or in chunks, and whether the connection is to break before its end.
fn body(
    reader: &mut impl BufRead,
    headers: &HashMap<String, String>,
    breaks: &Mutex<Vec<usize>>,
) -> Option<(Vec<u8>, bool)> {
    let chunked = headers.contains_key("transfer-encoding");
    let length = headers.get("content-length");
    let mut left = length.map_or(0, |n| n.parse::<usize>().unwrap());
    let mut body = Vec::new();
    loop {
        if chunked {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            left = usize::from_str_radix(line.trim(), 16).ok()?;
        }
        let mut piece = vec![0; left];
        reader.read_exact(&mut piece).ok()?;
        body.extend(piece);
        if chunked {
            reader.read_line(&mut String::new()).ok()?;
        }
        let mut breaks = breaks.lock().unwrap();
        if let Some(at) = breaks.first().copied()
            && body.len() > at
        {
            breaks.remove(0);
            body.truncate(at);
            return Some((body, true));
        }
        if !chunked || left == 0 {
            return Some((body, false));
        }
    }
}

fn serve(
    mut connection: TcpStream,
    handler: &Handler,
    log: &Mutex<Vec<String>>,
    breaks: &Mutex<Vec<usize>>,
) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    // A TLS greeting is no HTTP: the connection ends, and the client tries plain http.
    if reader.fill_buf().ok()?.first() == Some(&0x16) {
        return None;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            match line.trim().split_once(": ") {
                None => break,
                Some((name, value)) => {
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
            }
        }
        let (body, broken) = body(&mut reader, &headers, breaks)?;
        let range = headers.get("range").cloned().unwrap_or_default();
        log.lock().unwrap().push(format!("{method} {path} {range}"));
        let is_head = method == "HEAD";
        let reply = handler(&Request {
            method,
            path,
            headers,
            body,
            broken,
        });
        if broken {
            return None;
        }
        let mut head = format!(
            "HTTP/1.1 {} X\r\ncontent-length: {}\r\n",
            reply.status,
            reply.body.len()
        );
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        connection
            .write_all(format!("{head}\r\n").as_bytes())
            .ok()?;
        if is_head {
            continue;
        }
        let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        connection.write_all(&reply.body[..sent]).ok()?;
        if reply.cut.is_some() {
            return None;
        }
    }
}
