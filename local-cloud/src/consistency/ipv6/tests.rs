use super::*;

const INSIDE: &str = "2400:6500:0cbe:2800::/56";
const LATER: Duration = Duration::from_secs(3);

fn vpcs(state: &str) -> Element {
    let xml = format!(
        "<R><vpcSet><item><vpcId>vpc-1</vpcId><ipv6CidrBlockAssociationSet><item><associationId>assoc-1\
         </associationId><ipv6CidrBlock>{INSIDE}</ipv6CidrBlock><ipv6CidrBlockState><state>{state}</state>\
         </ipv6CidrBlockState></item></ipv6CidrBlockAssociationSet></item></vpcSet></R>"
    );
    Element::parse(xml.as_bytes()).expect("well-formed")
}

fn subnet(id: &str, block: &str) -> Element {
    let xml = format!(
        "<R><subnet><subnetId>{id}</subnetId><vpcId>vpc-1</vpcId><ipv6CidrBlockAssociationSet><item>\
         <associationId>subnet-cidr-assoc-{id}</associationId><ipv6CidrBlock>{block}</ipv6CidrBlock>\
         <ipv6CidrBlockState><state>{{'State': 'associated'}}</state></ipv6CidrBlockState></item>\
         </ipv6CidrBlockAssociationSet></subnet></R>"
    );
    Element::parse(xml.as_bytes()).expect("well-formed")
}

/// Returns a cloud with one VPC, made just now.
fn cloud(seed: u64) -> (Blocks, Instant) {
    let now = Instant::now();
    let mut blocks = Blocks::new(Seed(seed));
    blocks.vpc_made(&vpcs("associated"), now);
    (blocks, now)
}

fn block(blocks: &Blocks) -> Ipv6Net {
    blocks.associations["assoc-1"].block
}

/// Returns the answer as a caller sees it at some time: each association's block and state.
fn shown(blocks: &Blocks, now: Instant) -> Vec<(String, String)> {
    let mut answer = vpcs("associated");
    blocks.show_vpcs(&mut answer, now);
    let outside = blocks.outwards(Bytes::from(answer.write_ec2()));
    let answer = Element::parse(&outside).expect("well-formed");
    let text = |item: &Element, name| item.text_of(name).unwrap_or("").to_owned();
    answer.items(LIST).iter().map(|item| (text(item, "ipv6CidrBlock"), text(item, "state"))).collect()
}

#[test]
fn a_new_block_is_empty_until_it_is_associated() {
    for seed in 0..20 {
        let (blocks, now) = cloud(seed);
        let last = |when| shown(&blocks, when).pop().expect("an association");
        assert_eq!(last(now), (String::new(), "associating".to_owned()));
        assert!(blocks.is_associating("vpc-1", now));
        assert_eq!(last(now + LATER), (block(&blocks).to_string(), "associated".to_owned()));
        assert!(!blocks.is_associating("vpc-1", now + LATER));
    }
}

#[test]
fn the_same_seed_gives_the_same_block() {
    assert_eq!(block(&cloud(5).0), block(&cloud(5).0));
    assert_ne!(block(&cloud(5).0), block(&cloud(6).0));
}

#[test]
fn some_seeds_give_a_zero_fourth_group() {
    let is_zero = |seed| block(&cloud(seed).0).network().segments()[3] == 0;
    let zero: Vec<u64> = (0..80).filter(|seed| is_zero(*seed)).collect();
    assert!((8..40).contains(&zero.len()), "{zero:?}");
    let text = block(&cloud(zero[0]).0).to_string();
    assert!(text.ends_with("::/56") && text.matches(':').count() <= 4, "{text}");
}

#[test]
fn every_block_lies_in_a_range_of_amazon() {
    for seed in 0..200 {
        let block = block(&cloud(seed).0);
        assert_eq!((block.prefix_len(), block.network()), (56, block.addr()));
        let ranges = RANGES.map(|range| range.parse::<Ipv6Net>().expect("a range"));
        assert!(ranges.iter().any(|range| range.contains(&block)), "{block}");
    }
}

#[test]
fn some_seeds_show_a_disassociated_block_first() {
    let first = |seed| {
        let (blocks, now) = cloud(seed);
        let all = shown(&blocks, now + LATER);
        assert_eq!(all.last().expect("one").1, "associated");
        all[0].clone()
    };
    let had_another = (0..80).filter(|seed| first(*seed).1 == "disassociated").count();
    assert!((8..40).contains(&had_another), "{had_another}");
    let one = (0..80).map(first).find(|first| first.1 == "disassociated").expect("one");
    assert!(one.0.parse::<Ipv6Net>().is_ok(), "{one:?}");
}

#[test]
fn requests_and_answers_name_the_same_block() {
    let (blocks, _) = cloud(1);
    let block = block(&blocks).to_string();
    assert_eq!(blocks.inwards(&block), Some(INSIDE));
    assert_eq!(blocks.inwards("2001:db8::/56"), None);
    assert_eq!(blocks.inwards("vpc-1"), None);
    let answer = Bytes::from(format!("<destinationIpv6CidrBlock>{INSIDE}</destinationIpv6CidrBlock>"));
    assert_eq!(
        blocks.outwards(answer),
        format!("<destinationIpv6CidrBlock>{block}</destinationIpv6CidrBlock>")
    );
}

#[test]
fn a_subnet_must_lie_in_an_associated_block() {
    let (mut blocks, now) = cloud(1);
    let mut subnets = block(&blocks).subnets(64).expect("64 is longer").map(|subnet| subnet.to_string());
    let (first, second) = (subnets.next().expect("many"), subnets.next().expect("many"));
    assert_eq!(blocks.fits("vpc-1", &first, now), Err(Unfit::Outside), "it is associating");
    let later = now + LATER;
    assert_eq!(blocks.fits("vpc-1", &first, later), Ok(()));
    assert_eq!(blocks.fits("vpc-2", &first, later), Err(Unfit::Outside));
    assert_eq!(blocks.fits("vpc-1", "2001:db8::/64", later), Err(Unfit::Outside));
    for text in ["", "2001:db8::", "2001:db8::1/64"] {
        assert_eq!(blocks.fits("vpc-1", text, later), Err(Unfit::NoBlock), "{text}");
    }
    blocks.subnet_made(&subnet("subnet-1", &first), later);
    assert_eq!(blocks.fits("vpc-1", &first, later), Err(Unfit::Overlaps));
    assert_eq!(blocks.fits("vpc-1", &second, later), Ok(()));
    assert_eq!(blocks.vpc_of("subnet-1"), Some("vpc-1"));
    blocks.subnet_deleted("subnet-1");
    assert_eq!(blocks.fits("vpc-1", &first, later), Ok(()));
    blocks.disassociated("assoc-1");
    assert_eq!(blocks.fits("vpc-1", &first, later), Err(Unfit::Outside));
}

#[test]
fn a_subnets_block_takes_a_moment_in_some_seeds() {
    let states = |seed| {
        let (mut blocks, now) = cloud(seed);
        let made = subnet("subnet-1", "2600:1f16:abc::/64");
        blocks.subnet_made(&made, now);
        [now, now + LATER].map(|when| {
            let mut answer = made.clone();
            let says = blocks.show_subnets(&mut answer, when);
            let state = answer.text_of("state").expect("a state").to_owned();
            assert_eq!(says, state == "associating");
            state
        })
    };
    let all: Vec<[String; 2]> = (0..40).map(states).collect();
    assert!(all.iter().all(|[_, later]| later == "associated"));
    assert!(all.iter().any(|[now, _]| now == "associating"));
    assert!(all.iter().any(|[now, _]| now == "associated"));
}
