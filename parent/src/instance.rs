//! Which EC2 instance this is, and of which Auto Scaling group: CloudWatch's dimensions and the subject of the verdict.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::sleep;

use crate::aws;
use crate::config::InstanceSource;

const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// An instance and its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// The Auto Scaling group's name.
    pub group: String,
}

/// Finds out, and asks again until it is known.
pub async fn find(source: &InstanceSource) -> Instance {
    loop {
        match ask(source).await {
            Ok(instance) => return instance,
            Err(error) => {
                tracing::warn!(%error, "it is not known which instance this is; set instance.id and instance.group, or allow instance tags in the metadata");
                sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

async fn ask(source: &InstanceSource) -> Result<Instance, aws::ImdsError> {
    let fetched = async |given: &Option<String>, path: &str, endpoint: SocketAddr| match given {
        Some(given) => Ok(given.clone()),
        None => aws::metadata(endpoint, path).await,
    };
    match source {
        InstanceSource::Given { id, group } => Ok(Instance { id: id.clone(), group: group.clone() }),
        InstanceSource::Imds { endpoint, id, group } => Ok(Instance {
            id: fetched(id, "/latest/meta-data/instance-id", *endpoint).await?,
            group: fetched(group, "/latest/meta-data/tags/instance/aws:autoscaling:groupName", *endpoint).await?,
        }),
    }
}
