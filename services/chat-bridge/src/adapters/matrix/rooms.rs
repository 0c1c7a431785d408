//! Which Matrix room is which room of `team.yaml`.
//!
//! An alias is resolved by asking the homeserver for it, never by what a room says of itself: any room's administrator
//! may claim an alias in the room's state.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use kit::{
    class::chain,
    crew::{Room as Configured, RoomAddress},
};
use matrix_sdk::{
    Client,
    config::RequestConfig,
    ruma::{
        OwnedRoomAliasId, OwnedRoomId, RoomId,
        api::{client::alias::get_alias::v3::Request, error::ErrorKind},
    },
};

/// How long the homeserver may look for an alias, once and not again: it asks other servers, and nothing is read meanwhile.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// The rooms of `team.yaml`, with their ids as far as they are known. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rooms {
    configured: Arc<Vec<Configured>>,
    ids: Arc<RwLock<BTreeMap<String, OwnedRoomId>>>,
}

impl Rooms {
    pub(super) fn new(configured: &[Configured]) -> Self {
        let ids = configured.iter().filter_map(|room| match &room.address {
            RoomAddress::Id(id) => Some((room.name.clone(), OwnedRoomId::try_from(id.as_str()).ok()?)),
            RoomAddress::Alias(_) => None,
        });
        Self { ids: Arc::new(RwLock::new(ids.collect())), configured: Arc::new(configured.to_vec()) }
    }

    /// The name of the room with this id.
    pub(super) fn name(&self, id: &RoomId) -> Option<String> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        ids.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone())
    }

    /// The id of a room that is given by name or by id.
    pub(super) fn id(&self, name_or_id: &str) -> Option<OwnedRoomId> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        ids.get(name_or_id).cloned().or_else(|| OwnedRoomId::try_from(name_or_id).ok())
    }

    /// Asks for the ids of rooms that are given by alias. An alias that nobody has yet, or whose server is away, is asked for
    /// again next time; the other rooms do not wait for it.
    pub(super) async fn resolve(&self, client: &Client) {
        for room in self.unresolved() {
            let RoomAddress::Alias(alias) = &room.address else {
                continue;
            };
            let Ok(alias) = OwnedRoomAliasId::try_from(alias.as_str()) else {
                continue;
            };
            let config = RequestConfig::new().disable_retry().timeout(RESOLVE_WITHIN);
            match client.send(Request::new(alias)).with_request_config(config).await {
                Ok(found) => {
                    tracing::info!(room = %room.name, id = %found.room_id, "room found");
                    let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
                    ids.insert(room.name.clone(), found.room_id);
                }
                Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound)) => {}
                Err(error) => tracing::warn!(room = %room.name, error = %chain(&error), "a room is not found now"),
            }
        }
    }

    /// The ids of all rooms that are known.
    pub(super) fn known(&self) -> Vec<OwnedRoomId> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn unresolved(&self) -> Vec<&Configured> {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        self.configured.iter().filter(|room| !ids.contains_key(&room.name)).collect()
    }
}
