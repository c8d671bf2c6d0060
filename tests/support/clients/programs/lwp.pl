# Perl's LWP: GET POST BODY
use strict;
use LWP::UserAgent;
my ($get, $post, $body) = @ARGV;
my $agent = LWP::UserAgent->new;
print $agent->get($get)->content, "\n", $agent->post($post, Content => $body)->content, "\n";
