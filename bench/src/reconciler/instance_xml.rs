//! An instance in DescribeInstances, with all fields of a small one in a VPC: the function parses every byte
//! of it.

use planner::observation::{Instance, Role};

use super::stack::NAME;

/// Rows of one page; EC2 returns no more at once.
pub const PAGE: usize = 1000;

/// Returns the pages of an answer to DescribeInstances.
pub fn pages(rows: &[Instance]) -> Vec<String> {
    let number = rows.len().div_ceil(PAGE);
    let pages = rows.chunks(PAGE).enumerate();
    pages
        .map(|(page, rows)| {
            let next = if page + 1 < number { format!("<nextToken>{}</nextToken>", page + 1) } else { String::new() };
            let reservations: String = rows.iter().map(reservation).collect();
            format!(
                r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>8f7724cf-496f-496e-8fe3-example</requestId><reservationSet>{reservations}</reservationSet>{next}</DescribeInstancesResponse>"#
            )
        })
        .collect()
}

fn reservation(row: &Instance) -> String {
    let Instance { id, subnet, zone, release, .. } = row;
    let hex = id.as_str().trim_start_matches("i-");
    let ip = row.address.map(|ip| ip.to_string()).unwrap_or_default();
    let dns = format!("ip-{}.ec2.internal", ip.replace('.', "-"));
    let launched = row.launched.map(|time| format!("{time:.3}")).unwrap_or_default();
    let role = match row.role {
        Role::Worker => fleet::stack::ROLE_WORKER,
        Role::LoadBalancer => fleet::stack::ROLE_LB,
    };
    let tag = |key: &str, value: &str| format!("<item><key>{key}</key><value>{value}</value></item>");
    let slot = row.slot.map(|slot| tag(fleet::stack::TAG_SLOT, &slot.to_string())).unwrap_or_default();
    let tags = [
        tag("Name", &format!("vigia-{NAME}-{role}")),
        tag(fleet::stack::TAG_STACK, NAME),
        tag(fleet::stack::TAG_ROLE, role),
        tag(fleet::stack::TAG_ATTEMPT, &row.attempt.unwrap_or(0).to_string()),
        tag(fleet::stack::TAG_RELEASE, release),
        slot,
    ]
    .concat();
    format!(
        r#"
<item><reservationId>r-{hex}</reservationId><ownerId>123456789012</ownerId><groupSet/><instancesSet><item>
<instanceId>{id}</instanceId><imageId>ami-0123456789abcdef0</imageId><instanceState><code>16</code><name>running</name></instanceState>
<privateDnsName>{dns}</privateDnsName><dnsName/><reason/><amiLaunchIndex>0</amiLaunchIndex><productCodes/>
<instanceType>t4g.nano</instanceType><launchTime>{launched}</launchTime>
<placement><availabilityZone>{zone}</availabilityZone><availabilityZoneId>use1-az1</availabilityZoneId><groupName/><tenancy>default</tenancy></placement>
<monitoring><state>disabled</state></monitoring><subnetId>{subnet}</subnetId><vpcId>vpc-0123456789abcdef0</vpcId>
<privateIpAddress>{ip}</privateIpAddress><sourceDestCheck>true</sourceDestCheck>
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>vigia-{NAME}-worker</groupName></item></groupSet>
<architecture>arm64</architecture><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName>
<blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-{hex}</volumeId><status>attached</status><attachTime>{launched}</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item></blockDeviceMapping>
<virtualizationType>hvm</virtualizationType><clientToken>ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGH</clientToken>
<tagSet>{tags}</tagSet><hypervisor>xen</hypervisor>
<networkInterfaceSet><item><networkInterfaceId>eni-{hex}</networkInterfaceId><subnetId>{subnet}</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/><ownerId>123456789012</ownerId><status>in-use</status><macAddress>0a:ff:d0:12:34:56</macAddress><privateIpAddress>{ip}</privateIpAddress><privateDnsName>{dns}</privateDnsName><sourceDestCheck>true</sourceDestCheck>
<groupSet><item><groupId>sg-0123456789abcdef0</groupId><groupName>vigia-{NAME}-worker</groupName></item></groupSet>
<attachment><attachmentId>eni-attach-{hex}</attachmentId><deviceIndex>0</deviceIndex><status>attached</status><attachTime>{launched}</attachTime><deleteOnTermination>true</deleteOnTermination><networkCardIndex>0</networkCardIndex></attachment>
<privateIpAddressesSet><item><privateIpAddress>{ip}</privateIpAddress><privateDnsName>{dns}</privateDnsName><primary>true</primary></item></privateIpAddressesSet>
<ipv6AddressesSet><item><ipv6Address>2600:1f18:0123:4567:89ab:cdef:0123:4567</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item></ipv6AddressesSet>
<interfaceType>interface</interfaceType><operator><managed>false</managed></operator></item></networkInterfaceSet>
<iamInstanceProfile><arn>arn:aws:iam::123456789012:instance-profile/vigia-{NAME}-worker</arn><id>AIPAABCDEFGHIJKLMNOPQ</id></iamInstanceProfile>
<ebsOptimized>false</ebsOptimized><enaSupport>true</enaSupport><cpuOptions><coreCount>2</coreCount><threadsPerCore>1</threadsPerCore></cpuOptions>
<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference></capacityReservationSpecification>
<hibernationOptions><configured>false</configured></hibernationOptions>
<metadataOptions><state>applied</state><httpTokens>required</httpTokens><httpPutResponseHopLimit>1</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint><httpProtocolIpv6>disabled</httpProtocolIpv6><instanceMetadataTags>disabled</instanceMetadataTags></metadataOptions>
<enclaveOptions><enabled>false</enabled></enclaveOptions><bootMode>uefi</bootMode><platformDetails>Linux/UNIX</platformDetails><usageOperation>RunInstances</usageOperation><usageOperationUpdateTime>{launched}</usageOperationUpdateTime>
<privateDnsNameOptions><hostnameType>ip-name</hostnameType><enableResourceNameDnsARecord>false</enableResourceNameDnsARecord><enableResourceNameDnsAAAARecord>false</enableResourceNameDnsAAAARecord></privateDnsNameOptions>
<maintenanceOptions><autoRecovery>default</autoRecovery><rebootMigration>default</rebootMigration></maintenanceOptions><currentInstanceBootMode>uefi</currentInstanceBootMode>
<networkPerformanceOptions><bandwidthWeighting>default</bandwidthWeighting></networkPerformanceOptions><operator><managed>false</managed></operator>
</item></instancesSet><requesterId>AROAABCDEFGHIJKLMNOPQ:vigia-{NAME}-reconciler</requesterId></item>"#
    )
}
