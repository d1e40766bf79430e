//! `antler master`, `metalogger` and `chunkserver`: a checked configuration and a
//! folder become a running process.
//!
//! Order matters: settings are checked whole, then the folder is taken (pid file),
//! then the port is opened, then storage is recovered; only then anything is said
//! to anybody.

mod chunkserver;
mod member;
mod reload;

pub(crate) use chunkserver::run as chunkserver;
pub(crate) use member::{JOURNAL, founding, master, metalogger};

use crate::failure::{At, Failure, OrFail, Outcome};
use crate::layout::make_folder;
use crate::log;
use antler_core::ids::{ClusterId, Incarnation};
use antler_core::machine::{Machine, ServerRequest};
use antler_net::config::Mistakes;
use antler_net::daemon;
use antler_net::driver::Driver;
use antler_net::identity::Registered;
use antler_net::listener::Listener;
use antler_net::pid::PidFile;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A daemon's folder, taken for this process.
struct Home {
    data: PathBuf,
    registered: Registered,
    _pid: PidFile,
}

impl Home {
    /// Takes the folder `data`, makes it if it is missing, and says whose it is.
    fn take(data: &Path, cluster: ClusterId, role: &str, id: Option<u64>) -> Outcome<Self> {
        make_folder(data)?;
        let pid = PidFile::take(&data.join("pid")).or_fail()?;
        let registered = Registered::open(&identity(data), cluster, role, id).or_fail()?;
        Ok(Self {
            data: data.to_owned(),
            registered,
            _pid: pid,
        })
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(self.registered.incarnation)
    }

    /// Serves the machine until it stops.
    async fn run<M>(self, driver: Driver<M>, listener: Listener) -> ExitCode
    where
        M: Machine<Request = ServerRequest> + Send + 'static,
    {
        let keeping =
            daemon::keep_incarnation(driver.clone(), self.registered, identity(&self.data));
        tokio::spawn(keeping);
        tokio::spawn(listener.run(driver.clone()));
        daemon::run(driver).await
    }
}

fn identity(data: &Path) -> PathBuf {
    data.join("identity")
}

/// Begins to log, and makes panics fatal.
fn begin(filter: &str) {
    log::start(filter, None);
    daemon::die_of_panics();
}

async fn listen(address: &str) -> Outcome<Listener> {
    Listener::bind(address)
        .await
        .map_err(|error| Failure::undone(format_args!("can't listen on {address}: {error}")))
}

fn refused(mistakes: &Mistakes) -> Failure {
    let count = mistakes.mistakes.len();
    let word = if count == 1 { "mistake" } else { "mistakes" };
    Failure::usage(format_args!(
        "{count} {word}, nothing was started:\n{mistakes}"
    ))
}

/// Makes the folder of something below a daemon's own.
fn subfolder(data: &Path, name: &str) -> Outcome<PathBuf> {
    let folder = data.join(name);
    std::fs::create_dir_all(&folder).at(&folder)?;
    Ok(folder)
}
