//! A trap at one point of a request's way: the first time that something comes there it springs, and
//! from then on nothing passes, in no direction and on no line, until it is opened.

use tokio::sync::watch;

/// What a worker does for a request, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The delivery comes from the broker.
    Receive,
    /// The engine is asked to start a run.
    Start,
    /// The engine's answer to that.
    Reply,
    /// The engine is asked how the run is, and answers.
    Poll,
    /// The engine is asked to start the second attempt's run, and answers.
    Again,
    /// The engine is asked for the output, and answers.
    Output,
    /// The result goes to the queue.
    Publish,
    /// The broker has it.
    Confirm,
    /// The request is acknowledged.
    Acknowledge,
}

/// A moment at which a worker may die, as the network sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// It was to pass, and did not.
    Before(Step),
    /// It has passed, and nothing has since.
    After(Step),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Set,
    /// The last thing passes, and nothing else does.
    Springing,
    Sprung,
    Open,
}

/// A trap.
#[derive(Debug)]
pub(super) struct Trap {
    point: Point,
    state: watch::Sender<State>,
}

impl Trap {
    pub(super) fn at(point: Point) -> Self {
        Self {
            point,
            state: watch::Sender::new(State::Set),
        }
    }

    /// Something is about to pass, and then will be at this point: what it brings about is to be
    /// held already.
    pub(super) fn approach(&self, point: Point) {
        if point == self.point {
            self.change(&[State::Set], State::Springing);
        }
    }

    /// Something is at this point. Returns when it may go on.
    pub(super) async fn meet(&self, point: Point) {
        if point == self.point {
            self.change(&[State::Set, State::Springing], State::Sprung);
        }
        self.hold().await;
    }

    fn change(&self, from: &[State], to: State) {
        self.state.send_if_modified(|state| {
            let changes = from.contains(state);
            if changes {
                *state = to;
            }
            changes
        });
    }

    /// Something else is to pass. Returns when it may.
    pub(super) async fn hold(&self) {
        self.until(|state| matches!(state, State::Set | State::Open))
            .await;
    }

    /// Waits until something came to the point.
    pub(super) async fn sprung(&self) {
        self.until(|state| state == State::Sprung).await;
    }

    /// Everything passes from now on, also what was held.
    pub(super) fn open(&self) {
        self.state.send_replace(State::Open);
    }

    async fn until(&self, wanted: impl Fn(State) -> bool) {
        let mut state = self.state.subscribe();
        let reached = state.wait_for(|state| wanted(*state)).await;
        reached.expect("the trap has its sender");
    }
}
