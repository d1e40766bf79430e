//! A client machine of this process: for a mount, and for the tools that ask the
//! leader something and go.

use crate::failure::{Failure, Outcome};
use antler_core::attributes::{Attributes, Credentials};
use antler_core::client::request::{ClientAnswer, ClientRequest, FileReply, FileRequest};
use antler_core::client::{Client, ClientConfig};
use antler_core::errno::Errno;
use antler_core::ids::{Address, Incarnation};
use antler_core::machine::{Input, Role};
use antler_core::wire::client_master::{Answer, Query};
use antler_fuse::Desk;
use antler_net::clock;
use antler_net::driver::{Delivery, Driver, Parts, Stopped};
use antler_net::identity::{Credential, Identity};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

type Result_ = Result<FileReply, Errno>;

/// Which cluster, and how.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) masters: Vec<String>,
    pub(crate) credential: Credential,
    /// Shown to operators.
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) retry_for: Option<Duration>,
}

/// A session with a cluster.
pub(crate) struct Session {
    pub(crate) driver: Driver<Client>,
    router: Arc<Router>,
    /// Even, so that they are never a desk's.
    next: AtomicU64,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Brings answers to whom they belong: a mount's to its desk, others to us.
struct Router {
    desk: OnceLock<Arc<Desk>>,
    own: Mutex<HashMap<u64, oneshot::Sender<Result_>>>,
    ready: watch::Sender<bool>,
    driver: OnceLock<Driver<Client>>,
}

impl Router {
    fn deliver(&self, answers: Vec<ClientAnswer>, delivery: &Delivery) {
        for answer in answers {
            match answer {
                ClientAnswer::Ready => {
                    self.ready.send_replace(true);
                }
                ClientAnswer::Done { operation, result } if operation % 2 == 0 => {
                    let waiting = self
                        .own
                        .lock()
                        .expect("no holder panics")
                        .remove(&operation);
                    if let Some(waiting) = waiting {
                        // Whoever asked may have given up.
                        let _ = waiting.send(result);
                    }
                }
                answer => match self.desk.get() {
                    Some(desk) => desk.deliver(answer, delivery),
                    None => self.forget_nothing(&answer),
                },
            }
        }
    }

    fn expect_answer(&self, operation: u64, sender: oneshot::Sender<Result_>) {
        let mut own = self.own.lock().expect("no holder panics");
        own.insert(operation, sender);
    }

    /// Nothing is mounted, so no kernel has anything to forget.
    fn forget_nothing(&self, answer: &ClientAnswer) {
        let (ClientAnswer::InvalidateEntry { ticket, .. }
        | ClientAnswer::InvalidateInode { ticket, .. }) = answer
        else {
            return;
        };
        if let Some(driver) = self.driver.get() {
            driver.feed(Input::Request(ClientRequest {
                operation: 0,
                credentials: Credentials::default(),
                body: FileRequest::Invalidated { ticket: *ticket },
            }));
        }
    }
}

impl Session {
    /// Starts a client; it connects by itself. Called within a runtime.
    pub(crate) fn start(access: Access) -> Self {
        let router = Arc::new(Router {
            desk: OnceLock::new(),
            own: Mutex::default(),
            ready: watch::Sender::new(false),
            driver: OnceLock::new(),
        });
        let config = ClientConfig {
            masters: access.masters.into_iter().map(Address).collect(),
            name: access.name,
            nonce: clock::random_id(),
            labels: access.labels,
            retry_for: access.retry_for,
            ..ClientConfig::default()
        };
        let to = router.clone();
        let driver = Driver::start(Parts {
            machine: Client::new(config, clock::random_id(), clock::now()),
            identity: Identity::new(access.credential, Role::Client, 0),
            incarnation: Incarnation(0),
            storage: Box::new(|never| match never {}),
            answers: Box::new(move |answers, delivery| to.deliver(answers, &delivery)),
            runtime: tokio::runtime::Handle::current(),
        });
        let is_first = router.driver.set(driver.clone()).is_ok();
        assert!(is_first, "the router was just made");
        Self {
            driver,
            router,
            next: AtomicU64::new(2),
        }
    }

    /// Waits until the session stands.
    ///
    /// # Errors
    /// When it does not within `patience`, or every master refuses us: with the
    /// reason of each.
    pub(crate) async fn ready(&self, patience: Duration) -> Outcome<()> {
        const LOOK: Duration = Duration::from_millis(100);
        let mut ready = self.router.ready.subscribe();
        let end = tokio::time::Instant::now() + patience;
        loop {
            if let Ok(Ok(_)) = tokio::time::timeout(LOOK, ready.wait_for(|ready| *ready)).await {
                return Ok(());
            }
            let complaints = self.driver.complaints();
            if complaints.is_refused() || tokio::time::Instant::now() > end {
                return Err(self.unreachable(patience));
            }
        }
    }

    fn unreachable(&self, patience: Duration) -> Failure {
        let reasons = self.driver.complaints().unreachable();
        if reasons.is_empty() {
            return Failure::undone(format_args!(
                "no master leads after {} s; are most of them running?",
                patience.as_secs()
            ));
        }
        let lines: Vec<String> = reasons
            .into_iter()
            .map(|(address, reason)| format!("no session with {address}: {reason}"))
            .collect();
        Failure::undone(lines.join("\n"))
    }

    /// Asks the client machine and waits for its answer.
    ///
    /// # Errors
    /// What the machine answers.
    pub(crate) async fn ask(&self, credentials: Credentials, body: FileRequest) -> Result_ {
        let operation = self.next.fetch_add(2, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.router.expect_answer(operation, sender);
        self.driver.feed(Input::Request(ClientRequest {
            operation,
            credentials,
            body,
        }));
        answer.await.unwrap_or(Err(Errno::EIO))
    }

    /// Asks the leader a question.
    ///
    /// # Errors
    /// What the leader answers.
    pub(crate) async fn query(&self, query: Query) -> Result<Answer, Errno> {
        match self
            .ask(Credentials::default(), FileRequest::Ask(query))
            .await?
        {
            FileReply::Told(answer) => Ok(*answer),
            other => panic!("a question is answered by what was told, not {other:?}"),
        }
    }

    /// What a path from the root leads to.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub(crate) async fn path(&self, path: &[u8]) -> Outcome<Attributes> {
        let shown = String::from_utf8_lossy(path).into_owned();
        match self
            .query(Query::Path {
                path: path.to_vec(),
            })
            .await
        {
            Ok(Answer::Entry(attributes)) => Ok(attributes),
            Ok(other) => panic!("a path is answered by an entry, not {other:?}"),
            Err(error) => Err(Failure::undone(format_args!(
                "{shown}: in the cluster: {error}"
            ))),
        }
    }

    /// Lets a mount's desk have its answers from now on.
    pub(crate) fn serve(&self, desk: Arc<Desk>) {
        let is_first = self.router.desk.set(desk).is_ok();
        assert!(is_first, "a session serves one mount");
    }

    /// Ends the session: everything is written out first.
    ///
    /// # Errors
    /// When something could not be.
    pub(crate) async fn end(&self) -> Result<(), Errno> {
        self.ask(Credentials::default(), FileRequest::Shutdown)
            .await?;
        Ok(())
    }

    /// Resolves when the machine gives up.
    pub(crate) async fn stopped(&self) -> Stopped {
        self.driver.stopped(Duration::ZERO).await
    }
}

/// The name of this host, for operators.
pub(crate) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
