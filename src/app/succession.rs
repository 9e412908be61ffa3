//! How one router follows another, from the router's side: which sockets it
//! starts on, whom it tells, and what it does once another has taken over. How
//! sockets travel is `handover`'s business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::watch;

use super::cancels::CancelDoor;
use super::cli::ServeArgs;
use super::handover::{self, Predecessor, Sockets, Start};
use super::logging;
use super::notify::Manager;
use super::plane::Plane;
use super::secrets::Environment;
use super::serve::Failure;
use crate::config::Config;
use crate::engine::Handle;
use crate::net::clock;

/// The sockets that are there already.
pub(super) fn inherit(
    args: &ServeArgs,
    config: &Config,
    folder: &Path,
    environment: &Environment,
) -> Result<Start, Failure> {
    let path = config.server.handover_socket.as_ref().map(|path| folder.join(path));
    if args.takeover && path.is_none() {
        return Err(Failure::refused("--takeover needs handover_socket in the configuration"));
    }
    let path = path.filter(|_| args.takeover);
    Start::find(environment.variable("LISTEN_FDNAMES"), path.as_deref())
        .map_err(|error| Failure::failed(format!("the listening sockets: {error}")))
}

/// The sockets of routers that may have clients left.
pub(super) type Places = watch::Sender<Option<Arc<[PathBuf]>>>;

/// Where the engine learns whom it passes cancel requests on to: nobody, or,
/// if sockets were taken from a router, those that it will name.
pub(super) fn places(predecessor: Option<&Predecessor>) -> Places {
    watch::Sender::new(predecessor.is_none().then(Arc::default))
}

/// Says that clients are let in: in the log, to the router whose sockets these
/// were, and to the service manager.
pub(super) fn announce(
    handle: &Handle,
    predecessor: Option<Predecessor>,
    places: &Places,
    manager: &Manager,
) {
    for address in handle.local_addrs() {
        tracing::info!(target: logging::READY, "listening on {address}");
    }
    manager.ready();
    let Some(predecessor) = predecessor else { return };
    let told = predecessor.ready();
    match &told {
        Ok(_) => tracing::info!("took over from the router that listened before"),
        Err(error) => tracing::warn!(%error, "the router that listened before has not retired"),
    }
    places.send_replace(Some(told.unwrap_or_default().into()));
}

/// Accepts no more, because `successor` does, and tells it where cancel requests
/// of the clients that are left go. They do for as long as the door is there.
pub(super) async fn retire(
    plane: &Plane,
    places: &Places,
    successor: handover::Successor,
) -> Option<CancelDoor> {
    plane.handle().retire().await;
    let path = plane.config.server.handover_socket.as_ref()?;
    let door = CancelDoor::open(&plane.folder.join(path), plane.handle().clone());
    let door =
        door.inspect_err(|error| tracing::warn!(%error, "cancel requests will not get here")).ok();
    let mut all: Vec<PathBuf> = door.iter().map(|door| door.path().to_owned()).collect();
    let before = places.borrow().clone().unwrap_or_default();
    all.extend(before.iter().filter(|path| path.exists()).cloned());
    let _it_is_gone = successor.send(all);
    door
}

/// Tells the service manager that the engine answers, as often as it wants to
/// hear it.
pub(super) fn beat(plane: &Arc<Plane>, manager: &Manager) {
    let Some(pause) = manager.heartbeat() else { return };
    let (plane, manager) = (Arc::clone(plane), manager.clone());
    tokio::spawn(async move {
        while plane.handle().snapshot().await.is_some() {
            manager.alive();
            tokio::time::sleep(pause).await;
        }
    });
}

/// Offers the sockets to a router that takes over; nothing comes out of the
/// receiver if the configuration names no place for it.
pub(super) fn offer(
    plane: &Arc<Plane>,
    pages: Option<&std::net::TcpListener>,
) -> Result<tokio::sync::mpsc::Receiver<handover::Successor>, Failure> {
    let Some(path) = &plane.config.server.handover_socket else {
        return Ok(tokio::sync::mpsc::channel(1).1);
    };
    let path = plane.folder.join(path);
    let (plane, pages) =
        (Arc::clone(plane), pages.map(std::net::TcpListener::try_clone).transpose());
    let pages = pages.map_err(Failure::failed)?;
    let sockets = move || {
        let pages = pages.as_ref().map(std::net::TcpListener::try_clone).transpose()?;
        Ok(Sockets { clients: plane.handle().sockets()?, pages })
    };
    handover::offer(&path, sockets)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// Serves who is connected until all have left, the time is up, or a signal
/// comes.
pub(super) async fn serve_rest(plane: &Plane, term: &mut Signal, int: &mut Signal) {
    tracing::info!("another router accepts: serving the clients that are left");
    let timeouts = &plane.config.settings.timeouts;
    let all_left = async {
        // Who was accepted just before may still be logging in, and is no
        // client yet.
        tokio::time::sleep(clock::duration(timeouts.login)).await;
        plane.until_empty().await;
    };
    tokio::select! {
        // Cancel-safe: nothing is lost by not waiting any longer.
        () = all_left => {}
        () = tokio::time::sleep(clock::duration(timeouts.retire)) => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
