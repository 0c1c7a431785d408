//! The rooms that the account joins: where an allowed person asks it in, and where `team.yaml` says that it is.
//!
//! Looked at after every sync, so an invitation whose acceptance failed is accepted later. A stranger's invitation is
//! declined.

use matrix_sdk::{Client, RoomState, ruma::api::error::ErrorKind};

use super::{history::in_time, rooms::Rooms};
use crate::domain::rules::Rules;

/// Brings memberships in line with the rules.
pub(super) async fn settle(client: &Client, rules: &Rules) {
    for room in client.invited_rooms() {
        let Ok(invite) = room.invite_details().await else {
            continue;
        };
        let inviter = invite.inviter_id;
        let allowed = rules.senders.allow(inviter.as_str());
        // A room whose server is away must not hold up the others.
        let done = if allowed { in_time(room.join()).await } else { in_time(room.leave()).await };
        match done {
            Ok(()) => {
                tracing::info!(room = %room.room_id(), %inviter, joined = allowed, "invitation settled");
            }
            Err(error) => {
                tracing::warn!(room = %room.room_id(), %inviter, %error, "invitation not settled yet");
            }
        }
    }
}

/// Joins the rooms of `team.yaml` that the account is not in, where they let it.
pub(super) async fn join_configured(client: &Client, rooms: &Rooms) {
    for id in rooms.known() {
        let state = client.get_room(&id).map(|room| room.state());
        if !matches!(state, None | Some(RoomState::Left)) {
            continue;
        }
        match in_time(client.join_room_by_id(&id)).await {
            Ok(_) => tracing::info!(room = %id, "joined"),
            // A closed room: somebody has to invite us.
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::Forbidden | ErrorKind::NotFound)) => {
                tracing::warn!(room = %id, "an allowed person must invite the crew into this room");
            }
            Err(error) => tracing::warn!(room = %id, %error, "not joined"),
        }
    }
}
