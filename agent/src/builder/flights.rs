//! Equal work of several builds, done once.
//!
//! ```text
//! join(key) ── first one ──▶ flight: a task of its own ──▶ result to all tickets
//!      └────── later ones ──▶ the same flight, what it has told so far is told again
//! ticket dropped ── was it the last? ──▶ flight cancelled and forgotten
//! ```
//!
//! Knows nothing of what flies. A flight that nobody waits for any more is out of the table before it notices, so nobody
//! joins work that is being given up.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::progress::Seat;
use super::session::{Session, Sessions};

/// Bytes of output that are told again to those who join late.
const REMEMBERED: usize = 256 << 10;

/// One who waits for work: how it is told, and the client behind it.
#[derive(Clone)]
pub(crate) enum Passenger {
    /// A build.
    Build {
        /// The step in its progress.
        seat: Seat,
        /// Answers questions, if there is a client that can.
        session: Option<Session>,
    },
    /// All who wait for other work, of which this is a part.
    Cabin(Cabin),
}

/// Everybody who waits for one piece of work. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Cabin {
    shared: Arc<Mutex<Aboard>>,
    sessions: Sessions,
}

#[derive(Default)]
struct Aboard {
    seats: HashMap<u64, Seat>,
    /// Others that are told the same. They never lead back here: work is no part of itself.
    cabins: HashMap<u64, Cabin>,
    begun: bool,
    output: VecDeque<(i64, Vec<u8>)>,
    output_bytes: usize,
}

impl Cabin {
    /// The clients of those who wait.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// The work runs now, as opposed to waiting for what it needs.
    pub(crate) fn begin(&self) {
        let mut aboard = self.shared.lock();
        if !std::mem::replace(&mut aboard.begun, true) {
            aboard.seats.values().for_each(Seat::start);
            aboard.cabins.values().for_each(Cabin::begin);
        }
    }

    /// The work has written something.
    pub(crate) fn log(&self, stream: i64, data: &[u8]) {
        let mut aboard = self.shared.lock();
        for seat in aboard.seats.values() {
            seat.log(stream, data);
        }
        for cabin in aboard.cabins.values() {
            cabin.log(stream, data);
        }
        aboard.output_bytes += data.len();
        aboard.output.push_back((stream, data.to_vec()));
        while aboard.output_bytes > REMEMBERED {
            let Some((_, oldest)) = aboard.output.pop_front() else {
                break;
            };
            aboard.output_bytes -= oldest.len();
        }
    }

    /// What was written last.
    pub(crate) fn output(&self) -> Vec<u8> {
        let aboard = self.shared.lock();
        let chunks = aboard.output.iter();
        chunks.flat_map(|(_, data)| data.iter().copied()).collect()
    }

    fn board(&self, number: u64, passenger: Passenger) {
        let mut aboard = self.shared.lock();
        match passenger {
            Passenger::Build { seat, session } => {
                if let Some(session) = session {
                    self.sessions.add(session);
                }
                if aboard.begun {
                    seat.start();
                    for (stream, data) in &aboard.output {
                        seat.log(*stream, data);
                    }
                }
                aboard.seats.insert(number, seat);
            }
            Passenger::Cabin(cabin) => {
                self.sessions.add_all(&cabin.sessions);
                if aboard.begun {
                    cabin.begin();
                    for (stream, data) in &aboard.output {
                        cabin.log(*stream, data);
                    }
                }
                aboard.cabins.insert(number, cabin);
            }
        }
    }

    fn leave(&self, number: u64) {
        let mut aboard = self.shared.lock();
        aboard.seats.remove(&number);
        aboard.cabins.remove(&number);
    }
}

/// The work under way, by key.
pub(crate) struct Flights<K, T, E> {
    table: Mutex<HashMap<K, Arc<Flight<T, E>>>>,
    next: AtomicU64,
    tasks: TaskTracker,
}

struct Flight<T, E> {
    number: u64,
    waiting: Mutex<usize>,
    cabin: Cabin,
    cancel: CancellationToken,
    result: watch::Receiver<Option<Result<T, E>>>,
}

impl<K, T, E> Flights<K, T, E>
where
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Nothing is under way. Work runs as tasks of `tasks`.
    pub(crate) fn new(tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            table: Mutex::default(),
            next: AtomicU64::new(0),
            tasks,
        })
    }

    /// Joins the work of this key, or starts it. `start` must end soon after its token is cancelled.
    pub(crate) fn join<F, W>(
        self: &Arc<Self>,
        key: K,
        passenger: Passenger,
        start: F,
    ) -> Ticket<K, T, E>
    where
        F: FnOnce(Cabin, CancellationToken) -> W,
        W: Future<Output = Result<T, E>> + Send + 'static,
    {
        let number = self.number();
        let mut table = self.table.lock();
        let flight = match table.get(&key) {
            Some(flight) => Arc::clone(flight),
            None => {
                let (sender, result) = watch::channel(None);
                let flight = Arc::new(Flight {
                    number,
                    waiting: Mutex::new(0),
                    cabin: Cabin::default(),
                    cancel: CancellationToken::new(),
                    result,
                });
                table.insert(key, Arc::clone(&flight));
                let work = start(flight.cabin.clone(), flight.cancel.clone());
                let flights = Arc::clone(self);
                self.tasks.spawn(async move {
                    let result = work.await;
                    flights.land(&key, number);
                    let _ = sender.send(Some(result));
                });
                flight
            }
        };
        // While nobody can see it land, or be given up.
        *flight.waiting.lock() += 1;
        drop(table);
        self.aboard(key, number, flight, passenger)
    }

    /// Joins the work of this key if it is under way. Starts nothing.
    pub(crate) fn join_under_way(
        self: &Arc<Self>,
        key: K,
        passenger: Passenger,
    ) -> Option<Ticket<K, T, E>> {
        let table = self.table.lock();
        let flight = Arc::clone(table.get(&key)?);
        *flight.waiting.lock() += 1;
        drop(table);
        Some(self.aboard(key, self.number(), flight, passenger))
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn aboard(
        self: &Arc<Self>,
        key: K,
        number: u64,
        flight: Arc<Flight<T, E>>,
        passenger: Passenger,
    ) -> Ticket<K, T, E> {
        flight.cabin.board(number, passenger);
        Ticket {
            flights: Arc::clone(self),
            key,
            number,
            flight,
        }
    }

    fn land(&self, key: &K, number: u64) {
        let mut table = self.table.lock();
        if table.get(key).is_some_and(|flight| flight.number == number) {
            table.remove(key);
        }
    }
}

/// The wish to have a result. Dropping it gives the wish up.
pub(crate) struct Ticket<K, T, E>
where
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    flights: Arc<Flights<K, T, E>>,
    key: K,
    number: u64,
    flight: Arc<Flight<T, E>>,
}

impl<K, T, E> Ticket<K, T, E>
where
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Whether this wish started the work.
    pub(crate) fn started_it(&self) -> bool {
        self.flight.number == self.number
    }

    /// The result. `None`: the work was lost, which happens only when the daemon stops.
    pub(crate) async fn wait(self) -> Option<Result<T, E>> {
        let mut result = self.flight.result.clone();
        let result = result.wait_for(Option::is_some).await.ok()?;
        result.clone()
    }
}

impl<K, T, E> Drop for Ticket<K, T, E>
where
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.flight.cabin.leave(self.number);
        let mut table = self.flights.table.lock();
        let mut waiting = self.flight.waiting.lock();
        *waiting -= 1;
        if *waiting == 0 {
            let own = self.flight.number;
            if table
                .get(&self.key)
                .is_some_and(|flight| flight.number == own)
            {
                table.remove(&self.key);
            }
            self.flight.cancel.cancel();
        }
    }
}
