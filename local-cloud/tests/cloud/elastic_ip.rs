//! Elastic IPs: real TCP forwards that follow EC2's state.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Aws, ELASTIC_IP_POOL, ELASTIC_IPS, Instance, Network, PORT, cloud, code, get, known, launched, web_server,
};

struct ElasticIp<'a> {
    aws: &'a Aws,
    id: String,
    address: Ipv4Addr,
}

impl<'a> ElasticIp<'a> {
    async fn allocate(aws: &'a Aws) -> Self {
        let allocated = aws.ec2.allocate_address().send().await.expect("an address");
        Self {
            aws,
            id: allocated.allocation_id().expect("an id").to_owned(),
            address: allocated.public_ip().expect("an address").parse().expect("IPv4"),
        }
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// Returns the id of the association.
    async fn associate(&self, instance: &Instance) -> String {
        let request = self.aws.ec2.associate_address().allocation_id(&self.id).instance_id(&instance.id);
        let request = request.allow_reassociation(true);
        let associated = known(async || request.clone().send().await).await;
        associated.association_id().expect("an id").to_owned()
    }

    /// Returns the instance that EC2 shows as associated.
    async fn instance(&self) -> Option<String> {
        self.aws.settled(&[&self.id]).await;
        let described = self.aws.ec2.describe_addresses().allocation_ids(&self.id).send().await;
        let described = described.expect("described");
        described.addresses()[0].instance_id().filter(|id| !id.is_empty()).map(str::to_owned)
    }

    async fn release(self) {
        let release = self.aws.ec2.release_address().allocation_id(&self.id);
        known(async || release.clone().send().await).await;
    }
}

/// Returns the name of the instance that answers at a public address.
async fn who(address: SocketAddr) -> Result<Ipv4Addr, String> {
    get(address, "/id").await.map(|id| id.parse().expect("an address"))
}

async fn server_open_at(aws: &Aws, network: &Network, ports: &[u16]) -> (Instance, String) {
    let group = aws.group(network, ports).await;
    let launch = aws.launch(network).security_group_ids(&group).user_data(web_server().encode());
    let instance = launched(launch).await;
    instance.answers().await;
    (instance, group)
}

/// Returns a web server in a network of its own, the group that opens its ports, and an address that leads to it.
async fn server_with_address<'a>(aws: &'a Aws, ports: &[u16]) -> (Instance, String, ElasticIp<'a>) {
    let (instance, group) = server_open_at(aws, &aws.network().await, ports).await;
    let public = ElasticIp::allocate(aws).await;
    public.associate(&instance).await;
    (instance, group, public)
}

async fn assert_leads_nowhere(address: SocketAddr) {
    assert!(TcpStream::connect(address).await.is_err(), "{address} still leads somewhere");
}

/// Asserts that `status` shows where a public address leads.
async fn assert_status_shows(public: SocketAddr, private: SocketAddr) {
    let status = local_cloud::daemon::status(&cloud().endpoint).await.expect("it answers");
    assert!(status.public.contains(&(public, private)), "{:?}", status.public);
}

#[tokio::test]
async fn traffic_follows_the_association() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let network = aws.network().await;
    let (first, group) = server_open_at(&aws, &network, &[PORT]).await;
    let launch = aws.launch(&network).security_group_ids(group).user_data(web_server().encode());
    let second = launched(launch).await;
    second.answers().await;
    let public = ElasticIp::allocate(&aws).await;
    assert!(who(public.at(PORT)).await.is_err(), "it leads somewhere before it is associated");

    public.associate(&first).await;
    assert_eq!(who(public.at(PORT)).await, Ok(first.address));
    let association = public.associate(&second).await;
    assert_eq!(who(public.at(PORT)).await, Ok(second.address));
    assert_status_shows(public.at(PORT), (second.address, PORT).into()).await;

    aws.ec2.disassociate_address().association_id(association).send().await.expect("disassociated");
    assert_leads_nowhere(public.at(PORT)).await;
    public.release().await;
}

#[tokio::test]
async fn a_released_address_leads_nowhere() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (instance, _, public) = server_with_address(&aws, &[PORT]).await;
    let address = public.at(PORT);
    assert_eq!(who(address).await, Ok(instance.address));
    public.release().await;
    assert_leads_nowhere(address).await;
}

#[tokio::test]
async fn a_terminated_instance_loses_its_address() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (instance, _, public) = server_with_address(&aws, &[PORT]).await;
    aws.terminate(&instance.id).await;
    assert_leads_nowhere(public.at(PORT)).await;
    assert_eq!(public.instance().await, None);
    public.release().await;
}

#[tokio::test]
async fn only_ports_open_to_the_world_are_forwarded() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (instance, group, public) = server_with_address(&aws, &[]).await;
    let inside = aws.ec2.authorize_security_group_ingress().group_id(&group).ip_permissions(
        aws_sdk_ec2::types::IpPermission::builder()
            .ip_protocol("tcp")
            .from_port(i32::from(PORT))
            .to_port(i32::from(PORT))
            .user_id_group_pairs(aws_sdk_ec2::types::UserIdGroupPair::builder().group_id(&group).build())
            .build(),
    );
    known(async || inside.clone().send().await).await;
    assert!(TcpStream::connect(public.at(PORT)).await.is_err(), "a port that is open to a group alone");
    aws.open(&group, PORT).await;
    assert_eq!(who(public.at(PORT)).await, Ok(instance.address));
    let port = i32::from(PORT);
    let revoke = aws.ec2.revoke_security_group_ingress().group_id(&group).ip_protocol("tcp");
    let revoke = revoke.from_port(port).to_port(port).cidr_ip("0.0.0.0/0");
    known(async || revoke.clone().send().await).await;
    assert!(TcpStream::connect(public.at(PORT)).await.is_err(), "a port that is closed again");
    public.release().await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_associated() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let network = aws.network().await;
    let (instance, _) = server_open_at(&aws, &network, &[PORT]).await;
    let public = ElasticIp::allocate(&aws).await;
    aws.caught_up().await;
    let other_program = TcpListener::bind(public.at(PORT)).await.expect("the port is free");
    let request = aws.ec2.associate_address().allocation_id(&public.id).instance_id(&instance.id);
    let error = request.send().await.expect_err("refused");
    let says = format!("port {PORT} of {} is taken by another program on this machine", public.address);
    assert!(format!("{error:?}").contains(&says), "{error:?}");
    assert_eq!(public.instance().await, None);
    drop(other_program);
    public.associate(&instance).await;
    assert_eq!(who(public.at(PORT)).await, Ok(instance.address));
    public.release().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_not_opened_and_the_others_go_on() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (instance, group, public) = server_with_address(&aws, &[PORT]).await;
    aws.caught_up().await;
    let other_program = TcpListener::bind(public.at(PORT + 1)).await.expect("the port is free");
    let open = || {
        let request = aws.ec2.authorize_security_group_ingress().group_id(&group).ip_protocol("tcp");
        let port = i32::from(PORT + 1);
        request.from_port(port).to_port(port).cidr_ip("0.0.0.0/0").send()
    };
    let error = open().await.expect_err("refused");
    let says = format!("port {} of {} is taken by another program", PORT + 1, public.address);
    assert!(format!("{error:?}").contains(&says), "{error:?}");
    let described = aws.ec2.describe_security_groups().group_ids(&group).send().await.expect("described");
    assert_eq!(described.security_groups()[0].ip_permissions().len(), 1, "who tries again must not find it");
    assert_eq!(who(public.at(PORT)).await, Ok(instance.address));
    drop(other_program);
    open().await.expect("opened");
    assert_status_shows(public.at(PORT + 1), (instance.address, PORT + 1).into()).await;
    assert_eq!(who(public.at(PORT)).await, Ok(instance.address));
    public.release().await;
}

/// The call that is refused is in EC2's state for a moment.
#[tokio::test]
async fn a_taken_port_refuses_no_other_call() {
    const ROUNDS: usize = 20;
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (_, group, public) = server_with_address(&aws, &[PORT]).await;
    let other = aws.group(&aws.network().await, &[]).await;
    aws.caught_up().await;
    let _other_program = TcpListener::bind(public.at(PORT + 1)).await.expect("the port is free");
    let open = |group: &str, port: u16| {
        let request = aws.ec2.authorize_security_group_ingress().group_id(group).ip_protocol("tcp");
        request.from_port(port.into()).to_port(port.into()).cidr_ip("0.0.0.0/0").send()
    };
    for port in (7001..).take(ROUNDS) {
        let (refused, opened) = futures::join!(open(&group, PORT + 1), open(&other, port));
        assert!(refused.is_err(), "port {} is taken", PORT + 1);
        opened.expect("nothing takes this port");
    }
    public.release().await;
}

#[tokio::test]
async fn the_pool_is_finite_and_each_address_is_given_once() {
    let _pool = ELASTIC_IP_POOL.write().await;
    let aws = Aws::new();
    let allocate = || ElasticIp::allocate(&aws);
    let held = futures::future::join_all((0..ELASTIC_IPS).map(|_| allocate())).await;
    let mut addresses: Vec<Ipv4Addr> = held.iter().map(|address| address.address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), usize::from(ELASTIC_IPS), "{addresses:?}");
    assert_eq!(code(aws.ec2.allocate_address().send().await), "AddressLimitExceeded");
    let elsewhere = Aws::at(&cloud().endpoint, "eu-west-1", ("test", "test", None));
    assert_eq!(code(elsewhere.ec2.allocate_address().send().await), "AddressLimitExceeded");
    for address in held {
        address.release().await;
    }
    allocate().await.release().await;
}

/// The emulator keeps separate state for each region; the addresses of this machine are the same.
#[tokio::test]
async fn a_call_in_another_region_leaves_the_forward_alone() {
    let _pool = ELASTIC_IP_POOL.read().await;
    let aws = Aws::new();
    let (instance, _, public) = server_with_address(&aws, &[PORT]).await;
    let elsewhere = Aws::at(&cloud().endpoint, "eu-west-1", ("test", "test", None));
    let there = ElasticIp::allocate(&elsewhere).await;
    assert_ne!(there.address, public.address);
    there.release().await;
    assert_eq!(who(public.at(PORT)).await, Ok(instance.address));
    public.release().await;
}
