//! What is minted, and what is refused. Pure: the time is an input.

use std::time::Duration;

use jiff::Timestamp;
use kit::token::{self, Audience, Claims, SigningKey};
use schemas::ProjectId;
use schemas::ask::{AskCode, AskError, KeysReply, MintReply, MintRequest, PublicJwk};

/// Signs in the name of one project.
#[derive(Debug)]
pub struct Issuer {
    project: ProjectId,
    key: SigningKey,
    max_lifetime: Duration,
}

impl Issuer {
    /// An issuer that signs with `key` for at most `max_lifetime`.
    pub fn new(project: ProjectId, key: SigningKey, max_lifetime: Duration) -> Self {
        Self { project, key, max_lifetime }
    }

    /// Id of the key that signs.
    pub fn kid(&self) -> &str {
        self.key.public().kid()
    }

    /// The bearer that `request` asks for, when its deadline is ahead and not too far.
    pub fn mint(&self, request: &MintRequest, now: Timestamp) -> Result<MintReply, AskError> {
        // Whole seconds, and never beyond the deadline.
        let expires_at = request.deadline.as_second();
        let lifetime = expires_at.saturating_sub(now.as_second());
        let lifetime = u64::try_from(lifetime).ok().filter(|left| *left > 0);
        let Some(lifetime) = lifetime else {
            return Err(refuse(AskCode::DeadlinePassed, "the run's deadline has passed"));
        };
        if lifetime > self.max_lifetime.as_secs() {
            let hours = self.max_lifetime.as_secs() / 3600;
            let message = format!("the deadline lies more than {hours} hours ahead");
            return Err(refuse(AskCode::DeadlineTooFar, message));
        }
        let claims = Claims {
            project: self.project.clone(),
            agent: request.agent.clone(),
            run_id: request.run_id,
            root_run_id: request.root_run_id,
            epoch: request.epoch,
            audience: Audience::ALL.to_vec(),
            issued_at: now.as_second(),
            expires_at,
        };
        let failed = |_| refuse(AskCode::Internal, "the bearer could not be signed");
        let token = token::mint(&self.key, &claims).map_err(failed)?;
        let expires_at = Timestamp::from_second(expires_at)
            .map_err(|_| refuse(AskCode::DeadlineTooFar, "the deadline is no time"))?;
        Ok(MintReply { token, expires_at })
    }

    /// What verifiers need.
    pub fn keys(&self) -> KeysReply {
        KeysReply { keys: vec![PublicJwk::from(self.key.public().clone())] }
    }
}

pub(crate) fn refuse(code: AskCode, message: impl Into<String>) -> AskError {
    AskError { code, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use kit::token::Verifier;
    use schemas::RunId;

    const HOUR: Duration = Duration::from_hours(1);

    fn project() -> ProjectId {
        ProjectId::try_new("test").unwrap()
    }

    fn issuer() -> Issuer {
        Issuer::new(project(), SigningKey::generate(), HOUR)
    }

    fn request(deadline: Timestamp) -> MintRequest {
        let run = |n| RunId::from_uuid(uuid::Uuid::from_u128(n));
        MintRequest { run_id: run(1), root_run_id: run(2), agent: "coder".parse().unwrap(), epoch: 42, deadline }
    }

    #[test]
    fn a_bearer_says_what_was_asked_for_and_ends_with_the_run() {
        let (issuer, now) = (issuer(), Timestamp::UNIX_EPOCH);
        let deadline = now + SignedDuration::from_millis(59_900);
        let minted = issuer.mint(&request(deadline), now).unwrap();
        assert!(minted.expires_at <= deadline);

        let verifier = Verifier::new(project(), [issuer.key.public()]).unwrap();
        for audience in Audience::ALL {
            let claims = verifier.verify(&minted.token, audience, now).unwrap();
            assert_eq!(claims.epoch, 42);
            assert_eq!(claims.run_id, request(deadline).run_id);
            assert_eq!(claims.root_run_id, request(deadline).root_run_id);
            assert_eq!(claims.agent.as_str(), "coder");
        }
    }

    #[test]
    fn a_deadline_is_ahead_and_bounded() {
        let (issuer, now) = (issuer(), Timestamp::UNIX_EPOCH);
        let code = |seconds| {
            let deadline = now + SignedDuration::from_secs(seconds);
            issuer.mint(&request(deadline), now).map_err(|error| error.code).err()
        };
        assert_eq!(code(-1), Some(AskCode::DeadlinePassed));
        assert_eq!(code(0), Some(AskCode::DeadlinePassed));
        assert_eq!(code(1), None);
        assert_eq!(code(3600), None);
        assert_eq!(code(3601), Some(AskCode::DeadlineTooFar));
    }

    #[test]
    fn the_end_of_time_is_refused_and_not_a_panic() {
        let issuer = issuer();
        let error = issuer.mint(&request(Timestamp::MAX), Timestamp::MIN).unwrap_err();
        assert_eq!(error.code, AskCode::DeadlineTooFar);
    }
}
