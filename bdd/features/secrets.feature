Feature: Secrets
  A worker's secret comes from where it is guarded, and shows nowhere.

  @KEY-1
  Scenario Outline: A guarded file gives a secret
    Given a secret file of <bytes> bytes with the permissions <permissions>
    When I take the secret from <where>
    And I build a manager of that secret
    And I seal llama
    Then llama still verifies

    Examples:
      | bytes | permissions | where               |
      | 32    | 600         | the file            |
      | 4096  | 400         | the file            |
      | 64    | 440         | the file as mounted |
      | 64    | 444         | a link as mounted   |

  @KEY-1 @KEY-3 @ERR-2
  Scenario Outline: A file that is guarded loosely, or holds no secret, is refused without showing what or where it is
    Given a secret file of <bytes> bytes with the permissions <permissions>
    When I take the secret from <where>
    Then it fails with CONFIG_ERROR
    And the message contains "worker secret <problem>"
    And the message shows neither the secret nor its place

    Examples:
      | bytes | permissions | where               | problem                                  |
      | 64    | 640         | the file            | can be used by group or others           |
      | 64    | 620         | the file as mounted | can be written by group or others        |
      | 64    | 600         | a link              | is not a regular file                    |
      | 64    | 600         | nowhere             | cannot be read                           |
      | 31    | 600         | the file            | is 31 bytes long; 32 to 4096 are allowed |
      | 4097  | 600         | the file            | is longer than 4096 bytes                |

  @KEY-1
  Scenario: A random secret does not serve where a stored one is demanded
    Given a secret file of 64 bytes with the permissions 600
    When I build a manager of a random secret whose policy demands a stored one
    Then it fails with POLICY_VIOLATION
    And the message contains "stored_secret"
    When I take the secret from the file
    And I build a manager of that secret whose policy demands a stored one
    Then it succeeds

  @KEY-3 @AUD-6
  Scenario: A whole life shows neither secret nor key nor tag nor address
    Given a secret file of 64 bytes with the permissions 600
    When I take the secret from the file
    And I build a manager of that secret
    And I seal llama
    And I seal gemma expecting the digest of llama
    Then it fails with DIGEST_MISMATCH
    When I seal gemma
    And I execute llama
    And I keep the seal of llama as forged
    And the seal of forged comes back with bit 3 of byte 40 from the end flipped
    And I execute forged
    Then the seal is refused as forged
    When I begin an execution of llama
    And I release llama
    Then it fails with SHARD_BUSY
    When the execution finishes
    And bit 3 of byte 40000 of gemma flips in VRAM
    And I execute gemma
    Then it is an integrity failure of gemma that covers byte 40000
    When I shut down within 1000 ms
    Then nothing that was said or can be shown holds the secret, a key, a tag or an address
