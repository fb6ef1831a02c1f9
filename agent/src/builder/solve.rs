//! Decides which steps of a plan are run, which are found, and which wait for another build's.
//!
//! ```text
//! solve(step)
//!   definition key = own key + definition keys of the inputs        nothing is run to know it
//!   found under it?  ────────────────────────────────────────▶ cached, and so is everything below
//!   in flight, here or in another build?  ───────────────────▶ wait for that one
//!   solve(inputs), all at once
//!   content key = own key + what the inputs turned out to be
//!   found under it, or in flight?  ──────────────────────────▶ cached, or wait
//!   execute ─▶ recorded under both keys
//! ```
//!
//! A step with `fresh` (`--no-cache`) is not looked up; steps above it are looked up only by content. The first failure
//! is the build's: what else is under way for it is given up, unless another build waits for it. No step is done twice for one
//! build, also if it failed.
//!
//! An own key may take long to know (`late`: the client is sending what it is made of). What needs no such key is solved
//! meanwhile, unless it turns out that nobody needs it.
//!
//! What a step reads may have changed since its key was made ([`Read`]). Its result, and what is made of that, is then not
//! what the definition says: it is remembered by content alone, and another build that waited for it makes its own.
//! Must not: know what steps do, where results are, or how keys are made ([`Steps`] does).
//!
//! Source: buildkit `solver/{jobs,edge,scheduler}.go`, reduced to two keys.

use std::future::Future;
use std::sync::Arc;

use agent_image::Digest;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::flights::{Cabin, Flights, Passenger};
use super::progress::Seat;
use super::session::Session;

/// What a result is found by.
pub(crate) type Key = Digest;

/// Own keys that are made at the same time. Each may wait for a client or a server.
const OWN_KEYS: usize = 64;

/// The work under way in all builds.
pub(crate) type StepFlights<S> = Flights<Key, Outcome<<S as Steps>::Output>, <S as Steps>::Failure>;

/// What a step has read, compared with what its keys were made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// The same.
    AsKeyed,
    /// Something else, which had changed in between: with this content key.
    Changed(Key),
    /// It kept changing, and so the result has no key.
    Unsteady,
}

/// What came of a step.
#[derive(Debug, Clone)]
pub(crate) struct Outcome<T> {
    output: T,
    /// It is what the key of its flight says.
    as_keyed: bool,
}

impl<T> Outcome<T> {
    fn keyed(output: T) -> Self {
        Self {
            output,
            as_keyed: true,
        }
    }

    /// The same as the result of a definition, if there is one that names what it was made of.
    fn of(mut self, definition: Option<Key>) -> Self {
        self.as_keyed &= definition.is_some();
        self
    }
}

/// What the solver needs of the world. A seam for tests: in the daemon there is one implementation.
pub(crate) trait Steps: Send + Sync + 'static {
    /// What a step yields.
    type Output: Clone + Send + Sync + 'static;
    /// Why it does not.
    type Failure: Clone + Send + Sync + 'static;

    /// Key of what the step does, apart from its inputs. May wait for what the client sends.
    fn own_key(&self, step: usize) -> impl Future<Output = Result<Key, Self::Failure>> + Send;

    /// Key of what the step does and of what its inputs are. `None`: as good as the key of definitions. May be wanted by other
    /// builds than that of these steps: only `cancel` ends it.
    fn content_key(
        &self,
        step: usize,
        inputs: &[Self::Output],
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Option<Key>, Self::Failure>> + Send;

    /// A result that was recorded under a key and is still there, here or in a cache that the build may read. Only `cancel`
    /// ends it.
    fn find(
        &self,
        key: &Key,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Option<Self::Output>> + Send;

    /// Whether there is such a result. Fetches nothing.
    fn knows(&self, key: &Key) -> impl Future<Output = bool> + Send;

    /// Results that were recorded under keys were of use, although nobody had to look at them.
    fn used(&self, keys: Vec<Key>);

    /// Remembers a result under keys.
    fn record(&self, step: usize, keys: &[Key], output: &Self::Output);

    /// Does what the step says, and tells whether it was done on what the keys were made of. Ends soon after `cancel`, and
    /// leaves nothing then.
    fn execute(
        &self,
        step: usize,
        inputs: Vec<Self::Output>,
        cabin: Cabin,
        cancel: CancellationToken,
    ) -> impl Future<Output = Result<(Self::Output, Read), Self::Failure>> + Send;

    /// The failure of work that nobody wants any more.
    fn cancelled(&self) -> Self::Failure;

    /// Text for the step's progress.
    fn describe(&self, failure: &Self::Failure) -> String;
}

/// One step, as far as solving is concerned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// Steps whose results it reads.
    pub(crate) inputs: Vec<usize>,
    /// Its result is not looked up.
    pub(crate) fresh: bool,
    /// Its result belongs to this build: it is neither looked up nor shared.
    pub(crate) private: bool,
    /// Its own key is made of something that is still on its way.
    pub(crate) late: bool,
}

/// A result, or why there is none.
type Done<S> = Result<Outcome<<S as Steps>::Output>, <S as Steps>::Failure>;

/// The solving of one plan for one build.
pub(crate) struct Solve<S: Steps> {
    steps: S,
    nodes: Vec<Node>,
    /// A step or one below it is fresh: what was recorded for the definition says nothing.
    tainted: Vec<bool>,
    keys: Vec<OnceCell<Key>>,
    results: Vec<OnceCell<Done<S>>>,
    seats: Vec<Seat>,
    session: Option<Session>,
    flights: Arc<StepFlights<S>>,
    /// Cancelled when the build is over.
    cancel: CancellationToken,
}

impl<S: Steps> Solve<S> {
    /// Prepares the solving of steps in topological order, each with its place in the progress.
    pub(crate) fn new(
        steps: S,
        nodes: Vec<Node>,
        seats: Vec<Seat>,
        session: Option<Session>,
        flights: Arc<StepFlights<S>>,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        let mut tainted: Vec<bool> = Vec::with_capacity(nodes.len());
        for node in &nodes {
            tainted.push(node.fresh || node.inputs.iter().any(|input| tainted[*input]));
        }
        Arc::new(Self {
            keys: nodes.iter().map(|_| OnceCell::new()).collect(),
            results: nodes.iter().map(|_| OnceCell::new()).collect(),
            seats,
            steps,
            nodes,
            tainted,
            session,
            flights,
            cancel,
        })
    }

    /// Keys of the definitions of the steps, as far as they are known; all are when the target is solved.
    pub(crate) fn definitions(&self) -> Vec<Option<Key>> {
        self.keys.iter().map(|key| key.get().copied()).collect()
    }

    /// The result of a step. Dropping the future gives up what nobody else waits for.
    pub(crate) fn solve(
        self: &Arc<Self>,
        step: usize,
    ) -> impl Future<Output = Result<S::Output, S::Failure>> + Send + use<S> {
        let (this, outcome) = (Arc::clone(self), self.outcome(step));
        async move {
            let meanwhile = async {
                this.ahead(step).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                outcome = outcome => Ok(outcome?.output),
                () = meanwhile => unreachable!("it waits for ever"),
            }
        }
    }

    fn outcome(self: &Arc<Self>, step: usize) -> BoxFuture<'static, Done<S>> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let result = this.results[step].get_or_init(|| this.once(step));
            result.await.clone()
        })
    }

    /// Solves what needs no key that is late, and is not found, as far as a step is made of it.
    async fn ahead(self: &Arc<Self>, step: usize) {
        let needed = self.needed_by(step);
        let mut late = vec![false; step + 1];
        for step in &needed {
            let node = &self.nodes[*step];
            late[*step] = node.late || node.inputs.iter().any(|input| late[*input]);
        }
        let above = needed.iter().filter(|step| late[**step]);
        let mut early: Vec<usize> = above
            .flat_map(|step| self.nodes[*step].inputs.iter().copied())
            .filter(|input| !late[*input] && !self.nodes[*input].private)
            .collect();
        early.sort_unstable();
        early.dedup();
        let solve = early.into_iter().map(|step| async move {
            let Ok(definition) = self.definition(step).await else {
                return;
            };
            // What is cached may be needed by nobody.
            if self.tainted[step] || !self.steps.knows(&definition).await {
                let _ = self.outcome(step).await;
            }
        });
        futures_util::future::join_all(solve).await;
    }

    /// Tells of every step under way that it was given up.
    pub(crate) fn give_up(&self) {
        self.seats.iter().for_each(Seat::given_up);
    }

    async fn once(self: &Arc<Self>, step: usize) -> Done<S> {
        let definition = self.definition(step).await?;
        if self.nodes[step].private {
            let (inputs, never) = (self.inputs(step).await?, CancellationToken::new());
            let inputs = inputs.into_iter().map(|input| input.output).collect();
            let executed = self.steps.execute(step, inputs, Cabin::default(), never);
            let (output, _) = executed.await?;
            return Ok(Outcome::keyed(output));
        }
        if !self.tainted[step]
            && let Some(found) = self.steps.find(&definition, &self.cancel).await
        {
            self.found(step);
            return Ok(Outcome::keyed(found));
        }
        let flight = self.flight(step, definition);
        let (mut result, joined) = self.fly(step, definition, flight).await;
        if joined && result.as_ref().is_ok_and(|outcome| !outcome.as_keyed) {
            // What another build read had changed by then. What this one reads is its own affair.
            let own = format!("own {:p} {definition}", Arc::as_ptr(self));
            result = self
                .fly(step, definition, Digest::of(own.as_bytes()))
                .await
                .0;
        }
        self.told(step, &result);
        result
    }

    /// The key of a step's flight. What is run again must not be confused with what may be looked up meanwhile.
    fn flight(&self, step: usize, definition: Key) -> Key {
        match self.tainted[step] {
            true => Digest::of(format!("fresh {definition}").as_bytes()),
            false => definition,
        }
    }

    fn told(&self, step: usize, result: &Done<S>) {
        let seat = &self.seats[step];
        match result {
            Ok(_) => seat.done(),
            // The failure of an input is told there.
            Err(failure) if seat.started() => seat.failed(&self.steps.describe(failure)),
            Err(_) => {}
        }
    }

    /// Follows the flights of a step's inputs, for their news: it is another build's flight that needs their results. What is run
    /// again and has landed by now is not flown once more, which would run it twice.
    fn watch_inputs(self: &Arc<Self>, step: usize) -> BoxFuture<'static, ()> {
        let this = Arc::clone(self);
        Box::pin(async move {
            let watch = this.nodes[step].inputs.iter().map(|input| {
                let this = Arc::clone(&this);
                async move {
                    if !this.tainted[*input] {
                        let _ = this.outcome(*input).await;
                        return;
                    }
                    let watched = || async { this.watch(*input).await.ok_or(()) };
                    let _ = this.results[*input].get_or_try_init(watched).await;
                }
            });
            futures_util::future::join_all(watch).await;
        })
    }

    /// The result of a step that is under way, and of no other.
    async fn watch(self: &Arc<Self>, step: usize) -> Option<Done<S>> {
        let definition = self.definition(step).await.ok()?;
        let flight = self.flight(step, definition);
        let ticket = self.flights.join_under_way(flight, self.passenger(step))?;
        let below = async {
            self.watch_inputs(step).await;
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = ticket.wait() => result?,
            () = below => None?,
        };
        // What that build read had changed: not what this step's definition says.
        if result.as_ref().is_ok_and(|outcome| !outcome.as_keyed) {
            return None;
        }
        self.told(step, &result);
        Some(result)
    }

    fn passenger(&self, step: usize) -> Passenger {
        Passenger::Build {
            seat: self.seats[step].clone(),
            session: self.session.clone(),
        }
    }

    /// The step's result by a flight; and whether somebody else's.
    async fn fly(self: &Arc<Self>, step: usize, definition: Key, flight: Key) -> (Done<S>, bool) {
        let passenger = self.passenger(step);
        let this = Arc::clone(self);
        let ticket = self
            .flights
            .join(flight, passenger, |cabin, cancel| async move {
                this.produce(step, definition, cabin, cancel).await
            });
        // Another build's flight reads that build's inputs, and their news are wanted.
        let joined = !ticket.started_it();
        let inputs = async {
            if joined {
                self.watch_inputs(step).await;
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = ticket.wait() => result,
            () = inputs => None,
        };
        let result = result.unwrap_or_else(|| Err(self.steps.cancelled()));
        if joined && result.is_ok() {
            self.passed(self.nodes[step].inputs.clone());
        }
        (result, joined)
    }

    async fn inputs(self: &Arc<Self>, step: usize) -> Result<Vec<Outcome<S::Output>>, S::Failure> {
        let inputs = self.nodes[step].inputs.iter();
        try_join_all(inputs.map(|input| self.outcome(*input))).await
    }

    /// The flight of a step: its inputs, then itself.
    async fn produce(
        self: Arc<Self>,
        step: usize,
        definition: Key,
        cabin: Cabin,
        cancel: CancellationToken,
    ) -> Done<S> {
        let given_up = self.steps.cancelled();
        let inputs = tokio::select! {
            inputs = self.inputs(step) => inputs?,
            () = cancel.cancelled() => return Err(given_up),
        };
        // Otherwise the definition names other inputs.
        let definition = inputs
            .iter()
            .all(|input| input.as_keyed)
            .then_some(definition);
        let inputs: Vec<S::Output> = inputs.into_iter().map(|input| input.output).collect();
        let content = tokio::select! {
            content = self.steps.content_key(step, &inputs, &cancel) => content?,
            () = cancel.cancelled() => return Err(given_up),
        };
        let Some(content) = content else {
            let executed = self.execute(step, inputs, None, definition, cabin, cancel);
            return Ok(executed.await?.of(definition));
        };
        let fresh = self.nodes[step].fresh;
        if !fresh && let Some(found) = self.steps.find(&content, &cancel).await {
            self.steps.record(step, definition.as_slice(), &found);
            return Ok(Outcome::keyed(found).of(definition));
        }
        let flight = match fresh {
            true => Digest::of(format!("fresh content {content}").as_bytes()),
            false => Digest::of(format!("content {content}").as_bytes()),
        };
        let (this, read) = (Arc::clone(&self), inputs.clone());
        let passenger = Passenger::Cabin(cabin.clone());
        let ticket = self
            .flights
            .join(flight, passenger, |cabin, cancel| async move {
                let content = Some(content);
                this.execute(step, read, content, definition, cabin, cancel)
                    .await
            });
        let joined = !ticket.started_it();
        let result = tokio::select! {
            result = ticket.wait() => result,
            () = cancel.cancelled() => return Err(given_up),
        };
        let mut outcome = result.unwrap_or(Err(given_up))?;
        if joined && !outcome.as_keyed {
            let executed = self.execute(step, inputs, Some(content), definition, cabin, cancel);
            outcome = executed.await?;
        }
        if joined && outcome.as_keyed {
            self.steps
                .record(step, definition.as_slice(), &outcome.output);
        }
        Ok(outcome.of(definition))
    }

    /// Does what a step says and remembers the result under the keys that it has.
    async fn execute(
        &self,
        step: usize,
        inputs: Vec<S::Output>,
        content: Option<Key>,
        definition: Option<Key>,
        cabin: Cabin,
        cancel: CancellationToken,
    ) -> Done<S> {
        let (output, read) = self.steps.execute(step, inputs, cabin, cancel).await?;
        let keys: Vec<Key> = match read {
            Read::AsKeyed => definition.into_iter().chain(content).collect(),
            Read::Changed(content) => vec![content],
            Read::Unsteady => Vec::new(),
        };
        self.steps.record(step, &keys, &output);
        Ok(Outcome {
            output,
            as_keyed: read == Read::AsKeyed,
        })
    }

    /// The step's result was there, and so nothing below it is needed either.
    fn found(&self, step: usize) {
        let below = self
            .needed_by(step)
            .into_iter()
            .filter(|below| *below != step);
        let keys = below.filter_map(|step| self.keys[step].get().copied());
        self.steps.used(keys.collect());
        self.passed(vec![step]);
    }

    /// There is nothing to wait for of these steps and of what they are made of.
    fn passed(&self, mut passed: Vec<usize>) {
        while let Some(step) = passed.pop() {
            if self.seats[step].started() || self.seats[step].ended() {
                continue;
            }
            self.seats[step].done();
            passed.extend(&self.nodes[step].inputs);
        }
    }

    /// Key of a step's definition. Those of all steps below it are made on the way: in a loop, since a text may have any number
    /// of them one below the other.
    async fn definition(&self, step: usize) -> Result<Key, S::Failure> {
        if let Some(key) = self.keys[step].get() {
            return Ok(*key);
        }
        let below = self.needed_by(step);
        let own = futures_util::stream::iter(below.iter().copied())
            .map(|step| self.own(step))
            .buffered(OWN_KEYS);
        let own: Vec<Key> = own.try_collect().await?;
        // Inputs come before those who read them.
        for (step, own) in below.into_iter().zip(own) {
            let inputs = self.nodes[step].inputs.iter();
            let inputs = inputs.map(|input| *self.keys[*input].get().expect("made before"));
            // Somebody else may have been quicker, with the same.
            let _ = self.keys[step].set(combine(own, inputs));
        }
        Ok(*self.keys[step].get().expect("it is the last of them"))
    }

    /// A step and all below it, inputs first.
    fn needed_by(&self, step: usize) -> Vec<usize> {
        let mut needed = vec![false; step + 1];
        needed[step] = true;
        for step in (0..=step).rev() {
            if needed[step] {
                for input in &self.nodes[step].inputs {
                    needed[*input] = true;
                }
            }
        }
        (0..=step).filter(|step| needed[*step]).collect()
    }

    async fn own(&self, step: usize) -> Result<Key, S::Failure> {
        let own = self.steps.own_key(step).await;
        own.inspect_err(|failure| self.seats[step].failed(&self.steps.describe(failure)))
    }
}

/// One key of several, in order.
pub(crate) fn combine(own: Key, below: impl IntoIterator<Item = Key>) -> Key {
    let mut text = own.to_string();
    for key in below {
        text.push('\n');
        text.push_str(&key.to_string());
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests;
