//! Endpoints in the VPC: S3 through the route tables; the API of EC2, where it has no IPv6 address,
//! through interfaces in the private subnets.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::{ResourceType, VpcEndpointType};
use fleet::release::SubnetSpec;

use super::{Site, filter, id, name_in_stack, tagged};
use crate::aws::Aws;
use crate::blueprint::{Endpoint, EndpointKind};
use crate::error::{DeployError, Exit, Result, Step as _, found};
use crate::part::{NEW, Part, RunMode};
use crate::patience::Look;

/// An interface endpoint gets an interface and a name in each subnet, which takes a minute or two.
const AVAILABLE_DEADLINE: Duration = Duration::from_secs(600);

impl Site<'_> {
    pub(super) async fn endpoints(
        &mut self,
        wanted: &[Endpoint],
        tables: &[String],
        subnets: &[SubnetSpec],
        groups: &BTreeMap<&'static str, String>,
    ) -> Result<()> {
        let there = match &self.vpc {
            Some(vpc) => find(self.aws, vpc).await?,
            None => Vec::new(),
        };
        for wanted in wanted {
            let found = there.iter().find(|endpoint| endpoint.what == wanted.what);
            let part = Part::found(format!("endpoint {}", wanted.service), found.is_some());
            let endpoint = match found {
                Some(found) => found.id.clone(),
                None if self.mode.applies(&part) => {
                    self.create_endpoint(wanted, tables, subnets, groups).await?
                }
                None => NEW.to_owned(),
            };
            self.note(part);
            if self.mode == RunMode::Apply && wanted.kind != EndpointKind::Gateway {
                self.wait_for_endpoint(&endpoint).await?;
            }
        }
        Ok(())
    }

    async fn create_endpoint(
        &self,
        wanted: &Endpoint,
        tables: &[String],
        subnets: &[SubnetSpec],
        groups: &BTreeMap<&'static str, String>,
    ) -> Result<String> {
        let create = self
            .aws
            .ec2
            .create_vpc_endpoint()
            .client_token(self.token(wanted.what))
            .set_vpc_id(self.vpc.clone())
            .service_name(&wanted.service)
            .tag_specifications(tagged(self.aws, ResourceType::VpcEndpoint, wanted.what));
        let create = match wanted.kind {
            EndpointKind::Gateway => {
                create.vpc_endpoint_type(VpcEndpointType::Gateway).set_route_table_ids(Some(tables.to_vec()))
            }
            EndpointKind::Interface { group } => create
                .vpc_endpoint_type(VpcEndpointType::Interface)
                .set_subnet_ids(Some(subnets.iter().map(|subnet| subnet.id.clone()).collect()))
                .security_group_ids(groups.get(group).map_or(NEW, String::as_str))
                .private_dns_enabled(true),
        };
        let created = async || {
            let created = create.clone().send().await;
            created.step(|| format!("create the endpoint {}", wanted.service))
        };
        let created = self.aws.patience.depends_on(self.vpc_id(), created).await?;
        id(created.vpc_endpoint().and_then(|endpoint| endpoint.vpc_endpoint_id()), "endpoint")
    }

    /// Waits for the endpoint, through which the function reaches the EC2 API.
    async fn wait_for_endpoint(&self, endpoint: &str) -> Result<()> {
        let look = async || {
            let described = self.aws.ec2.describe_vpc_endpoints().vpc_endpoint_ids(endpoint).send().await;
            let described = described.step(|| format!("look at {endpoint}"))?;
            let state = described.vpc_endpoints().first().and_then(|seen| seen.state());
            judge(endpoint, state.map(|state| state.as_str()))
        };
        let what = format!("the endpoint {endpoint}");
        self.aws.patience.until(&what, AVAILABLE_DEADLINE, look).await
    }
}

/// EC2 writes its states in capitals in some answers and in small letters in others.
fn judge(endpoint: &str, state: Option<&str>) -> Result<Look<()>> {
    match state.map(str::to_ascii_lowercase).as_deref() {
        Some("available") => Ok(Look::Reached(())),
        None => Ok(Look::NotYet("not visible yet".to_owned())),
        Some(state @ ("failed" | "rejected" | "expired" | "deleting" | "deleted")) => {
            let what = format!("the endpoint {endpoint} is {state}");
            Err(DeployError::new(Exit::Failed, what)
                .hint("Delete it in the VPC console, then deploy again to create a new one."))
        }
        Some(state) => Ok(Look::NotYet(state.to_owned())),
    }
}

struct There {
    id: String,
    what: String,
}

async fn find(aws: &Aws, vpc: &str) -> Result<Vec<There>> {
    let described = aws.ec2.describe_vpc_endpoints().filters(filter("vpc-id", vpc)).send().await;
    let described = described.step(|| "look for the endpoints".to_owned())?;
    let live = described.vpc_endpoints().iter().filter(|endpoint| {
        !endpoint.state().is_some_and(|state| state.as_str().to_ascii_lowercase().starts_with("delet"))
    });
    let there = live.filter_map(|endpoint| {
        let what = name_in_stack(aws, endpoint.tags()).unwrap_or_default().to_owned();
        Some(There { id: endpoint.vpc_endpoint_id()?.to_owned(), what })
    });
    Ok(there.collect())
}

pub(super) async fn exists(aws: &Aws, vpc: &str, what: &str) -> Result<bool> {
    Ok(find(aws, vpc).await?.iter().any(|endpoint| endpoint.what == what))
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let ids: Vec<String> = find(aws, vpc).await?.into_iter().map(|endpoint| endpoint.id).collect();
    if !ids.is_empty() {
        let delete = aws.ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(ids.clone()));
        let deleted = async || delete.clone().send().await.step(|| "delete the endpoints".to_owned());
        found(aws.patience.settled(deleted).await)?;
    }
    Ok(ids.into_iter().map(|id| Part::removed(format!("endpoint {id}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;

    #[test]
    fn an_endpoint_is_waited_for_until_it_is_available() {
        let judged = |state| judge("vpce-1", state).map_err(|error| error.what);
        assert_eq!(judged(Some("available")), Ok(Look::Reached(())));
        assert_eq!(judged(Some("Pending")), Ok(Look::NotYet("pending".to_owned())));
        assert_eq!(judged(None), Ok(Look::NotYet("not visible yet".to_owned())));
        assert_eq!(judged(Some("Failed")), Err("the endpoint vpce-1 is failed".to_owned()));
    }

    #[tokio::test]
    async fn a_deployment_waits_for_a_new_interface_endpoint() {
        let seen = |state: &str| {
            format!(
                "<vpcEndpointSet><item><vpcEndpointId>vpce-1</vpcEndpointId><state>{state}</state></item>\
                 </vpcEndpointSet>"
            )
        };
        let stub = Stub::default()
            .answers("DescribeVpcEndpoints", "<vpcEndpointSet/>")
            .answers("CreateVpcEndpoint", "<vpcEndpoint><vpcEndpointId>vpce-1</vpcEndpointId></vpcEndpoint>")
            .answers("DescribeVpcEndpoints", &seen("pending"))
            .answers("DescribeVpcEndpoints", &seen("available"));
        let aws = stub.serve().await;
        let vpc = Some("vpc-1".to_owned());
        let mut site = Site { aws: &aws, mode: RunMode::Apply, vpc, parts: Vec::new() };
        let kind = EndpointKind::Interface { group: "endpoint" };
        let wanted = Endpoint { what: "ec2", service: "com.amazonaws.eu-west-1.ec2".to_owned(), kind };
        site.endpoints(&[wanted], &[], &[], &BTreeMap::new()).await.expect("it is available");
        assert_eq!(stub.count("DescribeVpcEndpoints"), 3);
    }
}
