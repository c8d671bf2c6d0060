# Ruby's Net::HTTP: GET POST BODY
require 'net/http'
get, post, body = ARGV
puts Net::HTTP.get(URI(get))
puts Net::HTTP.post(URI(post), body).body
