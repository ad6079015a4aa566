//! The EC2 calls that concern instances and addresses; all others pass through to moto.
//!
//! moto keeps the state (ids, states, tags, networks); here instances become processes, client tokens are
//! honoured and Elastic IPs forward connections.

mod call;
mod facts;
mod ipv6;
mod credits;
mod limits;
mod public;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header, request::Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use self::call::{Call, Reply, bad_request, in_region, owned, region_of};
pub(crate) use self::call::{Form, encode_form, parse_form};
use crate::account::{Account, Refusal};
use crate::addresses::{self, Block};
use crate::control::MachineView;
use crate::cpu::Policy;
use crate::credentials::Credentials;
use crate::door::{Admitted, Options, forward};
use crate::elastic_ip::{ElasticIps, Wanted};
use crate::imds::Metadata;
use crate::machine::{self, Image, Machine, POWER_OFF_DEADLINE};
use crate::quotas::Quota;
use crate::reply::{refusal, xml};
use crate::xml::Element;

pub type Tags = BTreeMap<String, String>;

pub struct Ec2 {
    dir: PathBuf,
    venv: PathBuf,
    endpoint: String,
    pool: Vec<Ipv4Addr>,
    moto: SocketAddr,
    ministack: SocketAddr,
    client: Client<HttpConnector, Body>,
    credentials: Arc<Credentials>,
    account: Arc<Account>,
    cpu: Policy,
    machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    /// Terminated; some of their processes may still be ending.
    terminated: Mutex<BTreeMap<String, Arc<Machine>>>,
    /// Held over a whole RunInstances: two calls with one token must not both launch. And over
    /// TerminateInstances: an instance that moto shows already may not have booted yet.
    launches: Mutex<Launches>,
    /// Held over a whole call that has a client token.
    answers: Mutex<Answers>,
    vpcs: Mutex<()>,
    /// Held while the forwards are read from moto, so that they end up in their latest state.
    elastic: Mutex<ElasticIps>,
    /// Held by a change until it is certain that it stays: a call that saw it would be refused for it.
    revocable: Mutex<()>,
    /// Regions with any call; moto keeps separate state for each.
    regions: parking_lot::Mutex<BTreeSet<String>>,
}

/// moto answers in milliseconds; when it hangs, the locks above must not be held for ever.
const EMULATOR_DEADLINE: Duration = Duration::from_secs(20);

/// Calls, besides RunInstances, whose client token AWS honours (EC2 API reference) and moto does not. A token
/// is valid for these as long as the local cloud runs.
const ONCE_PER_TOKEN: [&str; 3] =
    ["CreateEgressOnlyInternetGateway", "CreateRouteTable", "CreateVpcEndpoint"];

/// By action and client token: a hash of the parameters, and the answer.
type Answers = HashMap<(String, String), ([u8; 32], Bytes)>;

/// By client token and subnet: a token counts within one zone.
type Launches = HashMap<(String, String), Launch>;

/// The launch of a client token.
struct Launch {
    parameters: [u8; 32],
    reply: Bytes,
    instance: String,
}

impl Ec2 {
    pub fn new(
        options: &Options,
        endpoint: String,
        moto: SocketAddr,
        ministack: SocketAddr,
        client: Client<HttpConnector, Body>,
        credentials: Arc<Credentials>,
        account: Arc<Account>,
    ) -> Self {
        Self {
            dir: options.dir.join("instances"),
            venv: options.venv.clone(),
            endpoint,
            pool: options.elastic_ips.clone(),
            moto,
            ministack,
            client,
            credentials,
            account,
            cpu: options.cpu,
            machines: Mutex::default(),
            terminated: Mutex::default(),
            launches: Mutex::default(),
            answers: Mutex::default(),
            vpcs: Mutex::default(),
            elastic: Mutex::default(),
            revocable: Mutex::default(),
            regions: parking_lot::Mutex::default(),
        }
    }

    pub(crate) async fn handle(&self, admitted: Admitted) -> Response<Body> {
        let form = parse_form(&admitted.body);
        let call = Call { parts: admitted.parts, form };
        self.regions.lock().insert(call.region().to_owned());
        let handled = match call.get("Action").unwrap_or("") {
            "RunInstances" => self.run_instances(call).await,
            "TerminateInstances" => self.terminate_instances(call).await,
            "GetConsoleOutput" => self.console_output(&call).await,
            "CreateVpc" => self.create_vpc(call).await,
            "AllocateAddress" => self.allocate_address(call).await,
            "DeleteVpcEndpoints" => self.delete_vpc_endpoints(call).await,
            "DescribeInstanceTypeOfferings" => self.describe_offerings(&call).await,
            "DescribeAccountAttributes" => self.describe_account_attributes(&call).await,
            "DescribeInstanceCreditSpecifications" => Ok(self.describe_credits(&call).await),
            "ModifyInstanceCreditSpecification" => Ok(self.modify_credits(&call).await),
            action if ONCE_PER_TOKEN.contains(&action) => self.once_per_token(call).await,
            "AssociateAddress" => self.associate_address(call).await,
            "AuthorizeSecurityGroupIngress" => self.authorize_ingress(call).await,
            "DisassociateAddress"
            | "ReleaseAddress"
            | "RevokeSecurityGroupIngress"
            | "ModifyInstanceAttribute" => self.then_forward_traffic(call).await,
            _ => self.to_moto(&call).await.map(Reply::into_response),
        };
        handled.unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "an EC2 call failed in the local cloud");
            refusal("ec2", StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &format!("{error:#}"))
        })
    }

    async fn run_instances(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        let wants_one = call.get("MinCount") == Some("1") && call.get("MaxCount") == Some("1");
        if !wants_one {
            return Ok(bad_request(
                "UnsupportedOperation",
                "The local cloud launches one instance per call.",
            ));
        }
        if call.get("DryRun") == Some("true") {
            // moto does not check the subnet of a dry run.
            if let Some(subnet) = call.get("SubnetId") {
                let form = [("Action", "DescribeSubnets"), ("SubnetId.1", subnet)];
                let described = self.ask(&call.parts, &form).await?;
                if !described.ok {
                    return Ok(described.into_response());
                }
            }
            return match self.take_role(&mut call).await? {
                Ok(_) => Ok(self.to_moto(&call).await?.into_response()),
                Err(unknown) => Ok(unknown),
            };
        }
        let Some(subnet) = call.get("SubnetId").map(str::to_owned) else {
            let message = "The local cloud launches only in a subnet that the call itself names.";
            return Ok(bad_request("UnsupportedOperation", message));
        };
        let token = call.take("ClientToken").unwrap_or_default();
        let parameters: [u8; 32] = Sha256::digest(encode_form(&call.form)).into();
        let mut launches = self.launches.lock().await;
        if let Some(launch) = launches.get(&(token.clone(), subnet.clone())) {
            return Ok(self.replay(launch, &parameters).await);
        }
        let user_data = match call.get("UserData").map(|text| STANDARD.decode(text)).transpose() {
            Ok(user_data) => user_data.unwrap_or_default(),
            Err(_) => {
                return Ok(bad_request("InvalidParameterValue", "Invalid BASE64 encoding of user data."));
            }
        };
        let Ok(user_data) = String::from_utf8(user_data) else {
            return Ok(bad_request("UnsupportedOperation", "The local cloud takes user data as plain text."));
        };
        let role = match self.take_role(&mut call).await? {
            Ok(role) => role,
            Err(unknown) => return Ok(unknown),
        };
        let described =
            self.ask(&call.parts, &[("Action", "DescribeSubnets"), ("SubnetId.1", &subnet)]).await?;
        if !described.ok {
            return Ok(described.into_response());
        }
        let tree = Element::parse(&described.body)?;
        let block = Block::parse(tree.text_of("cidrBlock").context("the subnet has no block")?)?;
        let zone = tree.text_of("availabilityZone").unwrap_or("").to_owned();
        if !block.is_loopback() {
            let message = "The local cloud boots instances only in subnets of a VPC that it made itself.";
            return Ok(bad_request("UnsupportedOperation", message));
        }
        if let Some(refused) = self.refuse_launch(&call, &zone).await? {
            return Ok(refused);
        }
        let credits = limits::credits(&call).ok().flatten();
        let private: Vec<Ipv4Addr> =
            self.machines.lock().await.values().map(|machine| machine.address).collect();
        let used = private.iter().chain(&self.pool).copied().collect();
        let Some((address, metadata_port)) = addresses::take(block, &used).await else {
            let message = "There are not enough free addresses in the subnet.";
            return Ok(bad_request("InsufficientFreeAddressesInSubnet", message));
        };
        call.form.push(("PrivateIpAddress".to_owned(), address.to_string()));
        // With this parameter the interface is deleted with the instance, as on EC2 anyway; otherwise moto
        // keeps its address in use for ever.
        call.take("SubnetId");
        call.form.extend(owned(&[
            ("NetworkInterface.1.DeviceIndex", "0"),
            ("NetworkInterface.1.SubnetId", &subnet),
            ("NetworkInterface.1.DeleteOnTermination", "true"),
        ]));
        let reply = self.to_moto(&call).await?;
        if !reply.ok {
            return Ok(reply.into_response());
        }
        let instance = Element::parse(&reply.body)?
            .text_of("instanceId")
            .context("moto launched an instance without an id")?
            .to_owned();
        self.tag_interface(&call, &instance).await?;
        let image = Image {
            root: self.dir.join(&instance),
            address,
            metadata: Arc::new(Metadata {
                instance_id: instance.clone(),
                local_ipv4: address.to_string(),
                zone,
                region: call.region().to_owned(),
                instance_type: call.get("InstanceType").unwrap_or("").to_owned(),
                ami: call.get("ImageId").unwrap_or("").to_owned(),
                role,
                user_data,
                credentials: self.credentials.clone(),
                session: OnceLock::new(),
                token: Metadata::new_token(),
            }),
            endpoint: self.endpoint.clone(),
            aws_cli: self.venv.join("bin"),
            credits,
            cpu: self.cpu,
        };
        tracing::info!(instance, %address, "an instance boots");
        self.machines.lock().await.insert(instance.clone(), Arc::new(Machine::boot(image, metadata_port)));
        if !token.is_empty() {
            launches.insert((token, subnet), Launch { parameters, reply: reply.body.clone(), instance });
        }
        Ok(reply.into_response())
    }

    /// Answers the same token and parameters with the same answer, and makes nothing a second time.
    async fn once_per_token(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        let Some(token) = call.take("ClientToken") else {
            return Ok(self.to_moto(&call).await?.into_response());
        };
        let key = (call.get("Action").unwrap_or("").to_owned(), token);
        let parameters: [u8; 32] = Sha256::digest(encode_form(&call.form)).into();
        let mut answers = self.answers.lock().await;
        match answers.get(&key) {
            Some((before, answer)) if *before == parameters => {
                return Ok(xml(String::from_utf8_lossy(answer).into_owned()));
            }
            Some(_) => return Ok(other_parameters()),
            None => {}
        }
        let reply = self.to_moto(&call).await?;
        if reply.ok {
            answers.insert(key, (parameters, reply.body.clone()));
        }
        Ok(reply.into_response())
    }

    /// Returns the answer to a client token that was used before.
    async fn replay(&self, launch: &Launch, parameters: &[u8; 32]) -> Response<Body> {
        if launch.parameters != *parameters {
            return other_parameters();
        }
        if !self.machines.lock().await.contains_key(&launch.instance) {
            return bad_request(
                "IdempotentInstanceTerminated",
                "The client token belongs to an instance that is terminated.",
            );
        }
        xml(String::from_utf8_lossy(&launch.reply).into_owned())
    }

    /// Terminates instances. A second termination succeeds on EC2 and fails on moto, so moto gets each only
    /// once.
    async fn terminate_instances(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        let _no_launch = self.launches.lock().await;
        let is_id = |(key, _): &&(String, String)| key.starts_with("InstanceId.");
        let ids: Vec<String> = call.form.iter().filter(is_id).map(|(_, id)| id.clone()).collect();
        let terminated = self.terminated.lock().await;
        let (again, ids): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| terminated.contains_key(id));
        drop(terminated);
        let again: String = again.iter().map(|id| still_terminated(id)).collect();
        if ids.is_empty() && !again.is_empty() {
            return Ok(xml(format!(
                "<TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
                 <requestId>local-cloud</requestId><instancesSet>{again}</instancesSet>\
                 </TerminateInstancesResponse>"
            )));
        }
        call.form.retain(|pair| !is_id(&pair));
        call.form
            .extend(ids.iter().zip(1..).map(|(id, number)| (format!("InstanceId.{number}"), id.clone())));
        let mut reply = self.to_moto(&call).await?;
        if reply.ok {
            for id in &ids {
                self.power_off(id).await;
            }
            for id in &ids {
                self.lose_addresses(&call.parts, id).await?;
            }
            self.forward_traffic_or_warn().await;
            let all = String::from_utf8_lossy(&reply.body)
                .replace("</instancesSet>", &format!("{again}</instancesSet>"));
            reply.body = Bytes::from(all);
        }
        Ok(reply.into_response())
    }

    /// Powers the machine off in the background; its address is free once no process of it runs.
    async fn power_off(&self, id: &str) {
        if let Some(machine) = self.machines.lock().await.remove(id) {
            tracing::info!(instance = id, "an instance is terminated");
            machine.shut_down();
            self.terminated.lock().await.insert(id.to_owned(), machine);
        }
    }

    /// On EC2 a terminated instance loses its Elastic IPs; on moto it keeps them.
    async fn lose_addresses(&self, parts: &Parts, id: &str) -> anyhow::Result<()> {
        let of_it =
            [("Action", "DescribeAddresses"), ("Filter.1.Name", "instance-id"), ("Filter.1.Value.1", id)];
        for association in self.read(parts, &of_it).await?.all("associationId") {
            self.ask(parts, &[("Action", "DisassociateAddress"), ("AssociationId", &association.text)])
                .await?;
        }
        Ok(())
    }

    async fn console_output(&self, call: &Call) -> anyhow::Result<Response<Body>> {
        let id = call.get("InstanceId").unwrap_or("");
        let is_id =
            id.strip_prefix("i-").is_some_and(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        // A terminated instance has a console too.
        let Some(console) = machine::console(&self.dir.join(id)).ok().filter(|_| is_id) else {
            return Ok(self.to_moto(call).await?.into_response());
        };
        let console = STANDARD.encode(console);
        Ok(xml(format!(
            "<GetConsoleOutputResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>local-cloud</requestId><instanceId>{id}</instanceId><timestamp>{}</timestamp>\
             <output>{console}</output></GetConsoleOutputResponse>",
            jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
        )))
    }

    /// Moves a VPC's block into loopback: 10.77.0.0/16 becomes 127.77.0.0/16. Subnets are then cut from the
    /// block that DescribeVpcs shows.
    async fn create_vpc(&self, mut call: Call) -> anyhow::Result<Response<Body>> {
        // Two calls at once must not both have the last VPC of the quota.
        let _one_at_a_time = self.vpcs.lock().await;
        if !self.has_room_for(&call, Quota::Vpcs, "DescribeVpcs", "vpcSet").await? {
            return Ok(limits::refused(&Refusal::vpcs()));
        }
        if let Some(block) = call.take("CidrBlock") {
            let moved = Block::parse(&block).map_or(block, Block::into_loopback);
            call.form.push(("CidrBlock".to_owned(), moved));
        }
        Ok(self.to_moto(&call).await?.into_response())
    }

    /// EC2 shows a deleted endpoint for a moment, moto for ever: it loses its tags, so that no caller takes
    /// it for a leftover.
    async fn delete_vpc_endpoints(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let reply = self.to_moto(&call).await?;
        let ids = call.form.iter().filter(|(key, _)| key.starts_with("VpcEndpointId.")).map(|(_, id)| id);
        for id in ids.filter(|_| reply.ok) {
            let of_it =
                [("Action", "DescribeTags"), ("Filter.1.Name", "resource-id"), ("Filter.1.Value.1", id)];
            let tags = self.read(&call.parts, &of_it).await?;
            let mut untag =
                owned(&[("Action", "DeleteTags"), ("Version", "2016-11-15"), ("ResourceId.1", id)]);
            for (number, key) in tags.all("key").iter().enumerate() {
                untag.push((format!("Tag.{}.Key", number + 1), key.text.clone()));
            }
            self.send(self.moto, &call.parts, "ec2", &untag).await?;
        }
        Ok(reply.into_response())
    }

    /// Takes the instance profile out of a launch, because moto knows none, and returns its role; or the
    /// refusal of a profile that does not exist.
    async fn take_role(
        &self,
        call: &mut Call,
    ) -> anyhow::Result<std::result::Result<Option<String>, Response<Body>>> {
        let by_arn = call.take("IamInstanceProfile.Arn");
        let by_arn = by_arn.and_then(|arn| arn.rsplit('/').next().map(str::to_owned));
        let Some(profile) = call.take("IamInstanceProfile.Name").or(by_arn) else { return Ok(Ok(None)) };
        Ok(match self.role_of(&profile, &call.parts).await? {
            Some(role) => Ok(Some(role)),
            None => {
                let message = format!(
                    "Value ({profile}) for parameter iamInstanceProfile.name is invalid. \
                     Invalid IAM Instance Profile name"
                );
                Err(bad_request("InvalidParameterValue", &message))
            }
        })
    }

    /// Asks ministack for the role in an instance profile; `None` if there is no such profile.
    pub(crate) async fn role_of(&self, profile: &str, parts: &Parts) -> anyhow::Result<Option<String>> {
        let form =
            [("Action", "GetInstanceProfile"), ("Version", "2010-05-08"), ("InstanceProfileName", profile)];
        let reply = self.send(self.ministack, parts, "iam", &owned(&form)).await?;
        if !reply.ok {
            return Ok(None);
        }
        Ok(Element::parse(&reply.body)?.text_of("RoleName").map(str::to_owned))
    }

    async fn to_moto(&self, call: &Call) -> anyhow::Result<Reply> {
        self.send(self.moto, &call.parts, "ec2", &call.form).await
    }

    /// Sends a read to moto, in the region of the request that needs it.
    async fn ask(&self, parts: &Parts, form: &[(&str, &str)]) -> anyhow::Result<Reply> {
        let mut form = owned(form);
        form.push(("Version".to_owned(), "2016-11-15".to_owned()));
        self.send(self.moto, parts, "ec2", &form).await
    }

    /// Sends a read for which a refusal is a failure: an answer that was not understood must not count as
    /// "there is none".
    async fn read(&self, parts: &Parts, form: &[(&str, &str)]) -> anyhow::Result<Element> {
        let reply = self.ask(parts, form).await?;
        anyhow::ensure!(
            reply.ok,
            "moto answered {}: {}",
            reply.head.status,
            String::from_utf8_lossy(&reply.body)
        );
        Element::parse(&reply.body)
    }

    async fn send(&self, to: SocketAddr, parts: &Parts, service: &str, form: &Form) -> anyhow::Result<Reply> {
        let mut parts = parts.clone();
        let region = region_of(&parts);
        // The emulators read only the region and the service from it and check nothing.
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        parts.headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&authorization)?);
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        let answer = async {
            let response = forward(&self.client, to, parts, Bytes::from(encode_form(form))).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Reply { ok: head.status.is_success(), head, body })
        };
        tokio::time::timeout(EMULATOR_DEADLINE, answer).await.context("an emulator does not answer")?
    }

    /// Returns the tags of these resources, by id.
    pub async fn tags(&self, parts: &Parts, ids: &[String]) -> anyhow::Result<BTreeMap<String, Tags>> {
        let mut form =
            vec![("Action", "DescribeTags".to_owned()), ("Filter.1.Name", "resource-id".to_owned())];
        let numbered: Vec<String> =
            (1..=ids.len()).map(|number| format!("Filter.1.Value.{number}")).collect();
        form.extend(numbered.iter().map(String::as_str).zip(ids.iter().cloned()));
        let form: Vec<(&str, &str)> = form.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut tags = BTreeMap::<String, Tags>::new();
        for tag in self.read(parts, &form).await?.items("tagSet") {
            let [id, key, value] = ["resourceId", "key", "value"].map(|name| tag.text_of(name).unwrap_or(""));
            tags.entry(id.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        }
        Ok(tags)
    }

    /// Returns the route table that a subnet is associated with by this association.
    pub async fn route_table_of(&self, parts: &Parts, association: &str) -> anyhow::Result<Option<String>> {
        let form = [
            ("Action", "DescribeRouteTables"),
            ("Filter.1.Name", "association.route-table-association-id"),
            ("Filter.1.Value.1", association),
        ];
        let tables = self.read(parts, &form).await?;
        Ok(tables
            .items("routeTableSet")
            .first()
            .and_then(|table| table.text_of("routeTableId"))
            .map(str::to_owned))
    }

    pub async fn machine(&self, id: &str) -> Option<Arc<Machine>> {
        self.machines.lock().await.get(id).cloned()
    }

    /// Terminates an instance as if by an operator in the console.
    pub async fn terminate_behind_our_back(&self, id: &str, region: &str) -> anyhow::Result<()> {
        let parts = in_region(region)?;
        let form =
            owned(&[("Action", "TerminateInstances"), ("Version", "2016-11-15"), ("InstanceId.1", id)]);
        let response = self.terminate_instances(Call { parts, form }).await?;
        anyhow::ensure!(response.status().is_success(), "TerminateInstances answered {}", response.status());
        Ok(())
    }

    /// Returns live instances with their tags, as moto has them.
    pub async fn machines(&self, region: &str) -> anyhow::Result<Vec<MachineView>> {
        // Terminated ones stay listed, and a page has 100 unless more are requested.
        let running = [
            ("Action", "DescribeInstances"),
            ("MaxResults", "1000"),
            ("Filter.1.Name", "instance-state-name"),
            ("Filter.1.Value.1", "running"),
        ];
        let tree = self.read(&in_region(region)?, &running).await?;
        let machines = self.machines.lock().await;
        let mut views = Vec::new();
        for item in tree.all("instancesSet").iter().flat_map(|set| set.children.iter()) {
            let Some(machine) = item.text_of("instanceId").and_then(|id| machines.get(id)) else { continue };
            let tags = item
                .items("tagSet")
                .iter()
                .filter_map(|tag| {
                    Some((tag.text_of("key")?.to_owned(), tag.text_of("value").unwrap_or("").to_owned()))
                })
                .collect();
            views.push(MachineView {
                id: machine.id.clone(),
                address: machine.address,
                tags,
                credits: machine.cpu.credits().map(|credits| credits.name().to_owned()),
                cpu_limit: machine.cpu.limit(),
            });
        }
        Ok(views)
    }

    /// Returns the live instances of all regions.
    pub async fn all_machines(&self) -> anyhow::Result<Vec<MachineView>> {
        let mut views = Vec::new();
        for parts in self.every_region()? {
            views.extend(self.machines(region_of(&parts)).await?);
        }
        Ok(views)
    }

    /// Returns the head of a request for each region that was ever used.
    fn every_region(&self) -> anyhow::Result<Vec<Parts>> {
        let regions = self.regions.lock();
        regions.iter().map(|region| in_region(region)).collect()
    }

    pub async fn public_addresses(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.elastic.lock().await.addresses()
    }

    /// Powers every instance off and waits for it, within a bound. No instance is launched while the result
    /// is held.
    pub async fn stop_all(&self) -> impl Sized {
        let launches = self.launches.lock().await;
        drop(self.elastic.lock().await.apply(&Wanted::new()).await);
        let mut machines = std::mem::take(&mut *self.terminated.lock().await);
        machines.append(&mut *self.machines.lock().await);
        machines.values().for_each(|machine| machine.shut_down());
        let all_ended = || futures::future::join_all(machines.values().map(|machine| machine.ended()));
        if tokio::time::timeout(POWER_OFF_DEADLINE, all_ended()).await.is_err() {
            machines.values().for_each(|machine| machine.kill_host());
            all_ended().await;
        }
        launches
    }
}

fn still_terminated(id: &str) -> String {
    let state = "<code>48</code><name>terminated</name>";
    format!(
        "<item><instanceId>{id}</instanceId><currentState>{state}</currentState>\
         <previousState>{state}</previousState></item>"
    )
}

fn other_parameters() -> Response<Body> {
    bad_request("IdempotentParameterMismatch", "The client token was used before with other parameters.")
}
